"""Repeated timings as figures another person can check: order statistics, a mean with its interval,
outliers counted and kept, and ratios with intervals.

scipy is imported inside: a second nobody should wait for who measures nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgecompress.records import Interval, TimeStatistics

CONFIDENCE = 0.95
FENCE_RANGES = 1.5
"""Tukey's inner fences lie this many interquartile ranges beyond the quartiles (J. W. Tukey,
Exploratory Data Analysis, 1977, section 2D)."""
_SEED = 0
_RESAMPLES, _LEAST_RESAMPLES = 9999, 399
# Fewer resamples of very many runs: a second or two, in a few megabytes.
_RESAMPLED_VALUES, _BATCH_VALUES = 20_000_000, 1_000_000


def summarize(ticks: Sequence[int], tick_hz: int) -> TimeStatistics:
    """Statistics of timer readings.

    Quartiles and percentiles are Hyndman and Fan's type 7 (The American Statistician 50, 1996),
    numpy's default. Of a single run the mean has no interval: it is None.

    Args:
        ticks: one reading a run, at least one.
        tick_hz: the timer's rate.
    """
    us = np.asarray(ticks, np.float64) * (1e6 / tick_hz)
    low, median, high, p99 = (float(value) for value in np.quantile(us, (0.25, 0.5, 0.75, 0.99)))
    fence_low = low - FENCE_RANGES * (high - low)
    fence_high = high + FENCE_RANGES * (high - low)
    mean = float(us.mean())
    half = _mean_half_width(us)
    return TimeStatistics(
        runs=len(us),
        resolution_us=1e6 / tick_hz,
        median_us=median,
        quartile_low_us=low,
        quartile_high_us=high,
        min_us=float(us.min()),
        max_us=float(us.max()),
        p99_us=p99,
        mean_us=mean,
        mean_low_us=None if half is None else mean - half,
        mean_high_us=None if half is None else mean + half,
        outliers=int(np.count_nonzero((us < fence_low) | (us > fence_high))),
        fence_low_us=fence_low,
        fence_high_us=fence_high,
    )


def _mean_half_width(us: np.ndarray) -> float | None:
    """Half the mean's interval by Student's t with n - 1 degrees of freedom."""
    if len(us) < 2:
        return None
    from scipy import stats

    standard_error = float(us.std(ddof=1)) / math.sqrt(len(us))
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, len(us) - 1)) * standard_error


def ratio_of_medians(
    first_us: Sequence[float],
    second_us: Sequence[float],
    *,
    first_resolution_us: float = 0.0,
    second_resolution_us: float = 0.0,
) -> Interval:
    """Median of `second_us` over that of `first_us`, with a 95 % interval.

    The interval is the percentile bootstrap's (B. Efron and R. J. Tibshirani, An Introduction to
    the Bootstrap, 1993, section 13.3), of a fixed seed. Runs that all read the same tick would
    give it no width, so it is widened by what one tick of either clock can hide.

    Raises:
        ValueError: fewer than two runs on a side.
    """
    from scipy import stats

    runs = max(len(first_us), len(second_us))
    found = stats.bootstrap(
        (np.asarray(first_us, np.float64), np.asarray(second_us, np.float64)),
        _ratio,
        n_resamples=min(_RESAMPLES, max(_LEAST_RESAMPLES, _RESAMPLED_VALUES // runs)),
        batch=max(1, _BATCH_VALUES // runs),
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    one, two = float(np.median(first_us)), float(np.median(second_us))
    hidden = first_resolution_us / one + second_resolution_us / two
    return Interval(
        value=two / one,
        low=float(found.low) * max(0.0, 1 - hidden),
        high=float(found.high) * (1 + hidden),
    )


def _ratio(first: np.ndarray, second: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.median(second, axis=axis) / np.median(first, axis=axis)
