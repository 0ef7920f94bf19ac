"""The published losses once more, dense and in numpy, row by row as the papers write them: the oracles of the tests.

Every function takes float64 arrays [row, dim] and `same`, a [row, row] bool matrix of which rows count as the same.
"""

import math

import numpy as np


def cross_entropy(logits, same, smoothing=0.0):
    """The mean cross entropy of each row among its columns; `same` are its positives."""
    total = 0.0
    for row, positives in zip(logits, same, strict=True):
        everything, own = np.log(np.exp(row).sum()), np.log(np.exp(row[positives]).sum())
        total += everything - (1 - smoothing) * own - (smoothing * row.mean() if smoothing else 0.0)
    return total / len(logits)


def two_way(logits, same, smoothing=0.0):
    return (cross_entropy(logits, same, smoothing) + cross_entropy(logits.T, same.T, smoothing)) / 2


def contrastive(z, w, scale, same):
    return two_way(scale * z @ w.T, same)


def squared_distances(z, w):
    return np.array([[((a - b) ** 2).sum() for b in w] for a in z])


def kernel(z, w, scale, counted):
    return math.log(np.exp(-scale * squared_distances(z, w))[counted].mean())


def cua(z, w, scale, same):
    uniformity = (kernel(z, z, 2, ~same) + kernel(w, w, 2, ~same)) / 2
    return contrastive(z, w, scale, same) + ((z - w) ** 2).sum(1).mean() + uniformity


def cuaxu(z, w, scale, same):
    return cua(z, w, scale, same) + kernel(z, w, 2, ~same)


def cyclip(z, w, scale, same):
    n, s = len(z), z @ w.T
    inside, across = ((z @ z.T - w @ w.T) ** 2).sum() / n, ((s - s.T) ** 2).sum() / n
    return contrastive(z, w, scale, same) + 0.25 * inside + 0.25 * across


def cs_aligner(z, w, scale, same, width=1.0):
    every = np.ones_like(same)
    t = 1 / (2 * width**2)
    divergence = kernel(z, z, t, every) + kernel(w, w, t, every) - 2 * kernel(z, w, t, every)
    return contrastive(z, w, scale, same) + divergence


def align_clip(z, w, scale, same):
    """`s (x x' * D + diag S)` for both modalities, D of w; rows that count as the same, but itself, are left out."""
    own, distance = np.eye(len(z), dtype=bool), 1 - w @ w.T
    separation = 0.0
    for x in (z, w):
        logits = x @ x.T * np.where(own, 0, distance) + np.diag((z * w).sum(1))
        separation += cross_entropy(np.where(same & ~own, -np.inf, scale * logits), own)
    return 2 * contrastive(z, w, scale, same) + 0.5 * separation


PAIRWISE = {"cua": cua, "cuaxu": cuaxu, "cyclip": cyclip, "cs-aligner": cs_aligner, "align-clip": align_clip}


def volume(rows):
    """The volume of a parallelotope, by its singular values: another way than the determinant of the products."""
    return np.prod(np.linalg.svd(np.stack(rows), compute_uv=False))


def gram(modalities, scale, same):
    anchor, others = modalities[-1], modalities[:-1]
    logits = [[-scale * volume([a, *(x[j] for x in others)]) for j in range(len(same))] for a in anchor]
    return two_way(np.array(logits), same, smoothing=0.1)


def area(a, b, c):
    """Heron's formula."""
    sides = [np.linalg.norm(x - y) for x, y in ((a, b), (b, c), (c, a))]
    half = sum(sides) / 2
    return math.sqrt(max(0.0, half * np.prod([half - side for side in sides])))


def triangle(modalities, scale, same):
    one, other, anchor = modalities
    logits = [[-scale * 2 * area(a, b, c) ** 2 for b, c in zip(one, other, strict=True)] for a in anchor]
    return two_way(np.array(logits), same, smoothing=0.1)


def symile_all(modalities, scale, same):
    """All n^2 combinations of the two others; those of nothing but the same rows are no negatives."""
    total = 0.0
    for which in range(3):
        x, (y, v) = modalities[which], [rows for index, rows in enumerate(modalities) if index != which]
        for i in range(len(x)):
            own = scale * (x[i] * y[i] * v[i]).sum()
            negatives = [
                scale * (x[i] * y[j] * v[k]).sum()
                for j in range(len(x))
                for k in range(len(x))
                if not (same[i, j] and same[i, k])
            ]
            total += np.log(np.exp([own, *negatives]).sum()) - own
    return total / (3 * len(same))


def pmrl(modalities, same):
    within, directions = 0.0, []
    for rows in zip(*modalities, strict=True):
        matrix = np.stack(rows, axis=1)  # [dim, modality]
        left, values, _ = np.linalg.svd(matrix, full_matrices=False)
        within += np.log(np.exp(values / 0.05 - values[0] / 0.05).sum())
        u = left[:, 0]
        directions.append(u if u @ matrix.mean(1) > 0 else -u)
    u = np.stack(directions)
    return within / len(same) + cross_entropy(u @ u.T / 0.1, same)
