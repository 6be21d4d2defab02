"""Weight sharing: a layer's weights take few distinct values, which an index table stores.

Han et al., "Deep Compression", ICLR 2016, section 3: k-means over a layer's weights. Here every
output channel keeps a scale of its own, so one small codebook fits all channels:

    weight[c, i] ~ scale[c] * level[index[c, i]]     level: at most k integers in [-127, 127]

The one-dimensional k-means problem is solved exactly by dynamic programming (Wang and Song,
"Ckmeans.1d.dp", R Journal 3/2, 2011), so there are no starting points to draw.
"""

from __future__ import annotations

import numpy as np

_BINS = 768
_ROUNDS = 4
LARGEST_LEVEL = 127


def codebook(values: np.ndarray, importance: np.ndarray, count: int) -> np.ndarray:
    """The `count` centroids of least weighted squared error, ascending, float64.

    Exact for up to 768 distinct values; more are first merged into as many bins of equal width,
    each at its mean. Fewer distinct values than `count` are returned as they are.

    Args:
        values: [N] float.
        importance: [N] float, above 0: the weight of each value's squared error.
        count: 1 or more.
    """
    points, mass = _merged(values.astype(np.float64), importance.astype(np.float64))
    if len(points) <= count:
        return points
    cost = _segment_costs(points, mass)
    best = cost[0].copy()
    chosen = np.zeros((count, len(points)), np.int64)
    for clusters in range(1, count):
        # total[i, j]: the first i points in the clusters so far, points i..j in one more.
        total = best[:-1, None] + cost[1:, :]
        first = total.argmin(axis=0)
        improved = total[first, np.arange(len(points))]
        chosen[clusters] = first + 1
        best = np.minimum(improved, best)
        chosen[clusters][improved > best] = 0
    starts, end = [], len(points) - 1
    for clusters in range(count - 1, -1, -1):
        start = int(chosen[clusters][end]) if clusters else 0
        starts.append((start, end))
        end = start - 1
        if end < 0:
            break
    parts = [slice(start, stop + 1) for start, stop in reversed(starts)]
    return np.array([np.average(points[part], weights=mass[part]) for part in parts])


def share_weights(weight: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Levels and scales that bring `weight` closest: alternating codebook and channel scales.

    Both steps lower the squared error: the codebook is optimal for the scales, and for fixed
    levels q the best scale of a channel is <w, q> / <q, q>.

    Args:
        weight: float [O, ...].
        count: most distinct values, 16 or 4.

    Returns:
        int8 levels, ascending and at most `count`, and float64 scales [O], above 0.
    """
    flat = weight.reshape(len(weight), -1).astype(np.float64)
    scale = np.sqrt(np.mean(flat**2, axis=1))
    if not scale.any():
        return np.zeros(1, np.int8), np.full(len(weight), 2.0**-7)
    scale = np.maximum(scale, scale.max() * 2.0**-20)
    centroids = np.zeros(1)
    for _ in range(_ROUNDS):
        squares = np.broadcast_to(scale[:, None] ** 2, flat.shape)
        centroids = codebook((flat / scale[:, None]).ravel(), squares.ravel(), count)
        scale = refit_scale(flat, centroids[nearest(flat / scale[:, None], centroids)], scale)
    factor = LARGEST_LEVEL / np.abs(centroids).max()
    levels = np.unique(np.rint(centroids * factor)).astype(np.int8)
    scale = scale / factor
    chosen = levels[nearest(flat / scale[:, None], levels.astype(np.float64))]
    return levels, refit_scale(flat, chosen.astype(np.float64), scale)


def nearest(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Index of the level nearest to each value (levels ascending; a tie takes the lower)."""
    return np.searchsorted((levels[1:] + levels[:-1]) / 2, values)


def refit_scale(flat: np.ndarray, chosen: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Least-squares scales [O] for values [O, N] stored as `chosen`; `scale` where that is <= 0."""
    energy = np.sum(chosen * chosen, axis=1)
    fitted = np.sum(flat * chosen, axis=1) / np.where(energy > 0, energy, 1)
    return np.where(fitted > 0, fitted, scale)


def _merged(values: np.ndarray, importance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct points, ascending, and their total importance."""
    points, inverse = np.unique(values, return_inverse=True)
    if len(points) > _BINS:
        low, high = points[0], points[-1]
        inverse = np.minimum(((values - low) * (_BINS / (high - low))).astype(np.int64), _BINS - 1)
        mass = np.bincount(inverse, importance, _BINS)
        kept = mass > 0
        sums = np.bincount(inverse, importance * values, _BINS)
        return sums[kept] / mass[kept], mass[kept]
    return points, np.bincount(inverse, importance, len(points))


def _segment_costs(points: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """[n, n]: squared error of points i..j about their mean; infinite where j < i."""
    centred = points - np.average(points, weights=mass)

    def between(values: np.ndarray) -> np.ndarray:
        sums = np.concatenate([[0.0], np.cumsum(values)])
        return sums[None, 1:] - sums[:-1, None]

    total = between(mass)
    upper = np.triu(np.ones(total.shape, bool))
    square, linear = between(mass * centred**2), between(mass * centred)
    cost = square - linear**2 / np.where(upper, total, 1)
    return np.where(upper, np.maximum(cost, 0), np.inf)
