"""Activation ranges: each observer against its definition, searched by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from onnxruntime.quantization.calibrate import HistogramCollector

from edgecompress.compress.quantize import QuantizeOptions
from edgecompress.compress.quantize.affine import Affine, affine_from_range
from edgecompress.compress.quantize.ranges import SHRINK, choose


def counted(values: np.ndarray, bins: int = 512) -> tuple[float, float, np.ndarray]:
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    return low, high, np.histogram(values, bins, (low, high))[0].astype(np.float64)


def covered(affine: Affine) -> tuple[float, float]:
    low, high = affine.dequantize(np.array([affine.lowest, affine.highest]))
    return float(low), float(high)


def heavy_tailed(seed: int, *, positive: bool = False) -> np.ndarray:
    values = np.random.default_rng(seed).standard_t(3, 20_000)
    return np.maximum(values, 0) if positive else values


def divergence(
    low: float, high: float, histogram: list[float] | np.ndarray, affine: Affine
) -> float:
    """KL of the reference distribution and the quantized one, bin by bin, zeros left out."""
    bins = len(histogram)
    zero = int(bins * -low / (high - low))
    neighbours = [histogram[i] for i in (zero - 1, zero + 1) if i >= 0]
    histogram = [
        sum(neighbours) / len(neighbours) if i == zero else histogram[i] for i in range(bins)
    ]
    centres = [low + (high - low) * (i + 0.5) / bins for i in range(bins)]
    bottom, top = covered(affine)
    half = float(affine.scale) / 2
    inside = [i for i in range(bins) if bottom - half <= centres[i] <= top + half]
    reference = {i: float(histogram[i]) for i in inside}
    reference[inside[0]] += float(sum(histogram[: inside[0]]))
    reference[inside[-1]] += float(sum(histogram[inside[-1] + 1 :]))
    groups: dict[int, list[int]] = {}
    for i in inside:
        groups.setdefault(int(affine.quantize(np.array(centres[i]))), []).append(i)
    spread = dict.fromkeys(inside, 0.0)
    for members in groups.values():
        filled = [i for i in members if histogram[i] > 0]
        for i in filled:
            spread[i] = float(sum(histogram[j] for j in members)) / len(filled)
    mass, kept = sum(reference.values()), sum(spread.values())
    total = 0.0
    for i in inside:
        if reference[i] > 0:
            p = reference[i] / mass
            total += p * np.log(p / (max(spread[i], 1e-4) / kept))
    return total


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
def test_entropy_finds_the_least_divergence_of_all_ranges(positive: bool, symmetric: bool) -> None:
    low, high, histogram = counted(heavy_tailed(0, positive=positive))
    options = QuantizeOptions(observer="entropy", symmetric_activations=symmetric)
    candidates = [affine_from_range(low * f, high * f, symmetric=symmetric) for f in SHRINK]
    costs = [divergence(low, high, histogram, affine) for affine in candidates]
    found = choose(low, high, histogram, options)
    assert divergence(low, high, histogram, found) <= min(costs) + 1e-9
    assert covered(found)[1] < high


def test_entropy_is_no_wider_than_onnxruntimes_or_clips_alike() -> None:
    """Their search is over whole bins around zero, so the thresholds are near, not equal."""
    values = np.random.default_rng(1).laplace(size=50_000)
    top = float(np.abs(values).max())
    collector = HistogramCollector("entropy", True, 2048, 128, 99.99, "same")
    histogram, edges = np.histogram(values, 2049, (-top, top))
    theirs = collector.get_entropy_threshold((histogram, edges, -top, top, top), 128)[1]
    ours = choose(
        -top,
        top,
        np.histogram(values, 2048, (-top, top))[0].astype(float),
        QuantizeOptions(observer="entropy", symmetric_activations=True),
    )
    assert 0.3 <= float(theirs) / covered(ours)[1] <= 1.6


@pytest.mark.parametrize("positive", [False, True])
def test_mse_finds_the_least_error_of_all_ranges(positive: bool) -> None:
    values = heavy_tailed(2, positive=positive)
    low, high, histogram = counted(values, 4096)

    def error(affine: Affine) -> float:
        return float(np.mean((values - affine.dequantize(affine.quantize(values))) ** 2))

    found = choose(low, high, histogram, QuantizeOptions(observer="mse"))
    candidates = [affine_from_range(low * factor, high * factor) for factor in SHRINK]
    assert error(found) <= 1.02 * min(error(affine) for affine in candidates)
    assert error(found) < error(affine_from_range(low, high))


def test_percentile_cuts_the_rarest_values_of_each_side() -> None:
    values = heavy_tailed(3)
    low, high, histogram = counted(values, 20_000)
    options = QuantizeOptions(observer="percentile", percentile=99.0)
    bottom, top = covered(choose(low, high, histogram, options))
    assert top == pytest.approx(np.percentile(values[values > 0], 99), rel=0.03)
    assert -bottom == pytest.approx(np.percentile(-values[values < 0], 99), rel=0.03)
    whole = choose(low, high, histogram, QuantizeOptions(observer="percentile", percentile=100))
    assert covered(whole) == pytest.approx((low, high), rel=0.01)


def test_percentile_of_one_sided_values_starts_at_zero() -> None:
    low, high, histogram = counted(heavy_tailed(4, positive=True), 4096)
    options = QuantizeOptions(observer="percentile", percentile=99.9)
    bottom, top = covered(choose(low, high, histogram, options))
    assert bottom == 0
    assert 0 < top < high


@pytest.mark.parametrize("bits", [8, 16])
def test_ranges_as_onnxruntime_computes_them(bits: int) -> None:
    from onnxruntime.quantization.quant_utils import compute_scale_zp

    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    for low, high in ((-1.5, 3.0), (0.0, 6.0), (-0.2, 0.1), (0.5, 2.0)):
        ends = [np.array(value, np.float32) for value in (low, high)]
        limits = [np.array(value, np.int32) for value in (lowest, highest)]
        zero_point, scale = compute_scale_zp(*ends, *limits)
        ours = affine_from_range(low, high, bits=bits)  # type: ignore[arg-type]
        assert ours.scale == pytest.approx(float(scale), rel=1e-6)
        assert abs(ours.zero_point - int(zero_point)) <= 1
        symmetric = affine_from_range(low, high, bits=bits, symmetric=True)  # type: ignore[arg-type]
        zero_point, scale = compute_scale_zp(
            *ends, np.array(-highest), np.array(highest), symmetric=True
        )
        assert symmetric.zero_point == int(zero_point) == 0
        assert symmetric.scale == pytest.approx(float(scale), rel=1e-6)
