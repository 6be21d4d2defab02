"""Statistics against numpy and scipy, on any ticks hypothesis thinks of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from edgecompress.device.statistics import ratio_of_medians, summarize

TICKS = st.lists(st.integers(1, 10**9), min_size=1, max_size=60)
HZ = st.sampled_from([1000, 32768, 1_000_000, 216_000_000])


@settings(max_examples=60, deadline=None)
@given(TICKS, HZ)
def test_order_statistics_are_numpys(ticks: list[int], hz: int) -> None:
    found = summarize(ticks, hz)
    us = np.array(ticks) / hz * 1e6
    assert found.runs == len(ticks)
    assert found.median_us == pytest.approx(np.median(us))
    assert found.iqr_us == pytest.approx(stats.iqr(us), abs=1e-6)
    assert found.p99_us == pytest.approx(np.percentile(us, 99))
    assert (found.min_us, found.max_us) == pytest.approx((us.min(), us.max()))
    assert found.resolution_us == 1e6 / hz


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=60))
def test_the_means_interval_is_scipys(ticks: list[int]) -> None:
    found = summarize(ticks, 1_000_000)
    assert found.mean_us == pytest.approx(np.mean(ticks))
    if len(set(ticks)) == 1:
        assert found.mean_low_us == found.mean_high_us == pytest.approx(ticks[0])
        return
    low, high = stats.t.interval(0.95, len(ticks) - 1, np.mean(ticks), stats.sem(ticks))
    assert (found.mean_low_us, found.mean_high_us) == pytest.approx((low, high))


def test_a_single_run_has_no_interval() -> None:
    found = summarize([1234], 1_000_000)
    assert found.mean_low_us is None
    assert found.mean_high_us is None
    assert (found.median_us, found.p99_us, found.outliers) == (1234, 1234, 0)


@settings(max_examples=40, deadline=None)
@given(TICKS)
def test_outliers_are_what_boxplots_draw_as_fliers(ticks: list[int]) -> None:
    from matplotlib.cbook import boxplot_stats

    found = summarize(ticks, 1_000_000)
    (box,) = boxplot_stats(np.array(ticks, np.float64), whis=1.5)
    assert found.outliers == len(box["fliers"])


def test_outliers_are_counted_and_kept() -> None:
    ticks = [100, 101, 102, 103, 104, 105, 106, 107, 108, 1000]
    found = summarize(ticks, 1_000_000)
    assert found.outliers == 1
    assert found.max_us == 1000
    assert found.mean_us == np.mean(ticks)
    assert found.fence_low_us < 100 < 108 < found.fence_high_us < 1000


def test_the_ratios_interval_is_scipys_bootstrap() -> None:
    random = np.random.default_rng(1)
    first, second = random.normal(100, 3, 80), random.normal(90, 2, 50)
    found = ratio_of_medians(first, second)
    expected = stats.bootstrap(
        (first, second),
        lambda x, y, axis: np.median(y, axis=axis) / np.median(x, axis=axis),
        n_resamples=9999, method="percentile", rng=np.random.default_rng(7),
    ).confidence_interval  # fmt: skip
    assert found.value == pytest.approx(np.median(second) / np.median(first))
    assert found.low == pytest.approx(expected.low, rel=2e-3)
    assert found.high == pytest.approx(expected.high, rel=2e-3)
    assert found.low < found.value < found.high
    assert found.resolved
    assert found == ratio_of_medians(first, second), "the seed is fixed"


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(2)
    hits = 0
    for _ in range(40):
        found = ratio_of_medians(random.lognormal(0, 0.1, 40), 1.1 * random.lognormal(0, 0.1, 40))
        hits += found.low <= 1.1 <= found.high
    # 95 % of 40 is 38; fewer than 33 has a chance below 1 in 1000
    assert hits >= 33


def test_equal_ticks_are_no_surer_than_the_timer() -> None:
    found = ratio_of_medians(
        [100.0] * 20, [100.0] * 20, first_resolution_us=1.0, second_resolution_us=1.0
    )
    assert found.value == 1.0
    assert found.low == pytest.approx(0.98)
    assert found.high == pytest.approx(1.02)
    assert not found.resolved


def test_very_many_runs_take_seconds_not_minutes() -> None:
    ticks = np.arange(1000, 21_000, dtype=np.float64)
    found = ratio_of_medians(ticks, ticks * 2)
    assert found.value == 2.0
    assert found.low < 2.0 < found.high
