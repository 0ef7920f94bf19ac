"""The loss of rows that lack modalities, written row by row in plain Python: the reference of the tests of masks."""

import math

SCALE_OF_KERNEL = 2.0


def dot(x, y):
    return sum(a * b for a, b in zip(x, y, strict=True))


def squared_distance(x, y):
    return sum((a - b) ** 2 for a, b in zip(x, y, strict=True))


def classes(rows, linked):
    """row -> its class: rows that `linked` says of are in one class, over any chain."""
    of = {row: {row} for row in rows}
    for i in rows:
        for j in rows:
            if linked(i, j) and of[i] is not of[j]:
                merged = of[i] | of[j]
                for member in merged:
                    of[member] = merged
    return of


def classes_of_pair(rows, pair, positives):
    """As the loss has them: one number a row, or numbers by modality, of which the pair's two are joined."""
    given = positives if isinstance(positives, dict) else dict.fromkeys(pair, positives)
    numbers = [given[name] for name in pair if given.get(name) is not None]
    return classes(rows, lambda i, j: any(of[i] == of[j] for of in numbers))


def info_nce_of_pair(a, b, rows, same, scale):
    total = 0.0
    for queries, keys in ((a, b), (b, a)):
        for i in rows:
            scores = {j: math.exp(scale * dot(queries[i], keys[j])) for j in rows}
            positive = sum(score for j, score in scores.items() if j in same[i])
            total -= math.log(positive / sum(scores.values())) / len(rows)
    return total / 2


def weight_of(pair, weights):
    for key in ("+".join(pair), "+".join(reversed(pair))):
        if key in weights:
            return weights[key]
    return weights.get(pair[0], 1.0) * weights.get(pair[1], 1.0)


def reference_terms(
    embeddings,
    present,
    pairs,
    scale,
    anchor="text",
    positives=None,
    weights=None,
    alignment_weights=None,
    normalise=True,
):
    """contrastive, alignment, uniformity, skipped pairs, compared rows.

    Args:
        embeddings: modality -> list of rows. present: modality -> list of bool. pairs: of names.
        positives: one integer a row, or modality -> such integers, or None.
    """
    weights = weights or {}
    alignment_weights = weights if alignment_weights is None else alignment_weights
    sums = {"contrastive": [0.0, 0.0], "alignment": [0.0, 0.0]}
    skipped = compared = 0
    for one, other in pairs:
        a, b = embeddings[one], embeddings[other]
        rows = [i for i in range(len(a)) if present[one][i] and present[other][i]]
        if len(rows) < 2:
            skipped += 1
            continue
        compared += len(rows)
        same = classes_of_pair(rows, (one, other), positives)
        contrastive = info_nce_of_pair(a, b, rows, same, scale)
        alignment = sum(squared_distance(a[i], b[i]) for i in rows) / len(rows)
        for name, value, given in (
            ("contrastive", contrastive, weights),
            ("alignment", alignment, alignment_weights),
        ):
            share = len(rows) * weight_of((one, other), given)
            sums[name][0] += share * value
            sums[name][1] += share
    means = [total / share if share else 0.0 for total, share in sums.values()]
    return [*means, uniformity(embeddings, present, anchor, positives, normalise), skipped, compared]


def uniformity(embeddings, present, anchor, positives, normalise):
    num_rows = len(next(iter(embeddings.values())))
    centroids = {}
    for i in range(num_rows):
        has = [rows[i] for name, rows in embeddings.items() if present[name][i]]
        if len(has) >= 2:
            mean = [sum(values) / len(has) for values in zip(*has, strict=True)]
            norm = math.sqrt(dot(mean, mean)) if normalise else 1.0
            centroids[i] = [value / norm for value in mean]

    def same(i, j):
        if isinstance(positives, dict):
            of = positives.get(anchor)
            return i == j or (of is not None and present[anchor][i] and present[anchor][j] and of[i] == of[j])
        return i == j or (positives is not None and positives[i] == positives[j])

    kernel = [
        math.exp(-SCALE_OF_KERNEL * squared_distance(centroids[i], centroids[j]))
        for i in centroids
        for j in centroids
        if not same(i, j)
    ]
    return math.log(sum(kernel) / len(kernel)) if kernel else 0.0
