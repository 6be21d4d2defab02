"""The k-means of weight sharing against exhaustive search."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from edgecompress.compress.share import codebook, nearest, share_weights


def brute_force(values: np.ndarray, importance: np.ndarray, count: int) -> float:
    """Least weighted squared error over all ways to cut the sorted values into `count` runs."""
    order = np.argsort(values)
    values, importance = values[order], importance[order]
    least = np.inf
    for cuts in combinations(range(1, len(values)), count - 1):
        total = 0.0
        for part in np.split(np.arange(len(values)), cuts):
            mean = np.average(values[part], weights=importance[part])
            total += float(np.sum(importance[part] * (values[part] - mean) ** 2))
        least = min(least, total)
    return least


def error(values: np.ndarray, importance: np.ndarray, centroids: np.ndarray) -> float:
    chosen = centroids[nearest(values, centroids)]
    return float(np.sum(importance * (values - chosen) ** 2))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_codebook_is_optimal(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(size=9) + 5
    importance = random.uniform(0.1, 3, 9)
    centroids = codebook(values, importance, count)
    assert len(centroids) == count
    assert (np.diff(centroids) > 0).all()
    least = brute_force(values, importance, count)
    assert error(values, importance, centroids) == pytest.approx(least, rel=1e-9, abs=1e-12)


def test_few_distinct_values_are_their_own_codebook() -> None:
    values = np.array([3.0, 1, 3, 1, 2])
    np.testing.assert_array_equal(codebook(values, np.ones(5), 4), [1, 2, 3])


def test_many_values_come_within_a_permille_of_long_runs_of_lloyd() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=5000)
    found = error(values, np.ones(5000), codebook(values, np.ones(5000), 16))
    for start in range(3):
        centroids = np.sort(np.random.default_rng(start).choice(values, 16, replace=False))
        for _ in range(150):
            index = nearest(values, centroids)
            sums, counts = np.bincount(index, values, 16), np.bincount(index, minlength=16)
            centroids = np.sort(np.where(counts > 0, sums / np.maximum(counts, 1), centroids))
        assert found <= error(values, np.ones(5000), centroids) * 1.001


def test_channels_of_very_different_size_share_one_table() -> None:
    random = np.random.default_rng(1)
    weight = random.normal(size=(6, 60)) * np.array([1e-3, 0.01, 0.1, 1, 10, 100])[:, None]
    levels, scale = share_weights(weight, 16)
    assert levels.dtype == np.int8
    assert len(levels) <= 16
    assert np.abs(levels.astype(int)).max() == 127
    made = levels[nearest(weight / scale[:, None], levels.astype(float))] * scale[:, None]
    relative = np.sum((made - weight) ** 2, axis=1) / np.sum(weight**2, axis=1)
    assert relative.max() < 0.05


def test_weights_that_take_few_values_are_stored_exactly() -> None:
    random = np.random.default_rng(2)
    weight = random.choice([-0.6, -0.1, 0.0, 0.5], (4, 30)) * np.array([[1.0], [2], [0.5], [3]])
    levels, scale = share_weights(weight, 4)
    made = levels[nearest(weight / scale[:, None], levels.astype(float))] * scale[:, None]
    np.testing.assert_allclose(made, weight, atol=0.005 * np.abs(weight).max())


def test_a_layer_of_zeros_has_one_level() -> None:
    levels, scale = share_weights(np.zeros((2, 5)), 16)
    np.testing.assert_array_equal(levels, [0])
    assert (scale > 0).all()
