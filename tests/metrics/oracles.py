"""Every figure again, slowly, in plain Python on lists: no torch, no numpy, no formula shared with the package."""

import math

UNIFORMITY_T = 2


def unit(row):
    length = math.sqrt(math.fsum(x * x for x in row))
    return [x / length for x in row]


def dot(a, b):
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def squared_distance(a, b):
    return math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def mean(values):
    values = list(values)
    return math.fsum(values) / len(values)


def mean_row(rows):
    return [mean(column) for column in zip(*rows, strict=True)]


def is_tie(a, b):
    return abs(a - b) < 1e-13


def centroid_distance(a, b):
    return math.sqrt(squared_distance(mean_row(a), mean_row(b)))


def centroid_distance_unbiased(a, b):
    differences = [[x - y for x, y in zip(p, q, strict=True)] for p, q in zip(a, b, strict=True)]
    middle = mean_row(differences)
    n = len(a)
    spread = math.fsum(squared_distance(row, middle) for row in differences)
    return math.sqrt(max(0.0, dot(middle, middle) - spread / (n * (n - 1))))


def centroid_distance_group_unbiased(a, b, groups):
    differences = [[x - y for x, y in zip(p, q, strict=True)] for p, q in zip(a, b, strict=True)]
    middle = mean_row(differences)
    names = sorted(set(groups))
    scatter = 0.0
    for name in names:
        own = [row for row, group in zip(differences, groups, strict=True) if group == name]
        total = [math.fsum(row[k] - middle[k] for row in own) for k in range(len(middle))]
        scatter += dot(total, total)
    scatter *= len(names) / (len(names) - 1) / len(a) ** 2
    return math.sqrt(max(0.0, dot(middle, middle) - scatter))


def off_diagonal(a, b):
    n = len(a)
    return mean(dot(a[i], b[j]) for i in range(n) for j in range(n) if i != j)


def uniformity(rows):
    n = len(rows)
    return math.log(
        mean(math.exp(-UNIFORMITY_T * squared_distance(rows[i], rows[j])) for i in range(n) for j in range(n) if i != j)
    )


def centroids(*modalities):
    return [unit(mean_row(rows)) for rows in zip(*modalities, strict=True)]


def places(query, own, gallery, exclude=None):
    """Scores above the own item's, and other items that tie with it; `exclude` is a position not in the gallery."""
    score = dot(query, gallery[own])
    others = [dot(query, gallery[j]) for j in range(len(gallery)) if j not in (own, exclude)]
    ties = sum(is_tie(other, score) for other in others)
    above = sum(other > score and not is_tie(other, score) for other in others)
    return above, ties


def recall(a, b, k):
    """Mean over queries and over every order that the ties may stand in."""
    total = []
    for i in range(len(a)):
        above, ties = places(a[i], i, b)
        orders = [above + 1 + position for position in range(ties + 1)]
        total.append(mean(float(rank <= k) for rank in orders))
    return mean(total)


def reciprocal_rank(a, b):
    total = []
    for i in range(len(a)):
        above, ties = places(a[i], i, b)
        total.append(mean(1 / (above + 1 + position) for position in range(ties + 1)))
    return mean(total)


def ranks(a, b):
    found = [places(a[i], i, b) for i in range(len(a))]
    return [1 + above + ties / 2 for above, ties in found]


def median(values):
    ordered = sorted(values)
    n = len(ordered)
    return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2


def lenient_recall(a, b, captions, k):
    """Share of queries with any item of their caption among the first k; no ties expected."""
    hits = []
    for i in range(len(a)):
        order = sorted(range(len(b)), key=lambda j: -dot(a[i], b[j]))
        hits.append(float(any(captions[j] == captions[i] for j in order[:k])))
    return mean(hits)


def mixed_recall(a, b, k):
    n = len(a)
    total = []
    for own, other in ((a, b), (b, a)):
        gallery = own + other
        for i in range(n):
            above, ties = places(own[i], n + i, gallery, exclude=i)
            total.append(mean(float(above + 1 + position <= k) for position in range(ties + 1)))
    return mean(total)


def other_share(own, other, k):
    """Expected share of the other modality among the k nearest of each row, ties at the k-th place in random order."""
    n = len(own)
    shares = []
    for i in range(n):
        scored = [(dot(own[i], own[j]), False) for j in range(n) if j != i]
        scored += [(dot(own[i], other[j]), True) for j in range(n)]
        last = sorted((score for score, _ in scored), reverse=True)[k - 1]
        above = [flag for score, flag in scored if score > last and not is_tie(score, last)]
        tied = [flag for score, flag in scored if is_tie(score, last)]
        shares.append((sum(above) + (k - len(above)) * mean(map(float, tied))) / k)
    return mean(shares)


def auc(negative, positive):
    return mean(0.5 if p == q else float(p > q) for p in positive for q in negative)
