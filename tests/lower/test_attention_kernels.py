"""The products of attention, layer normalization and the selection of a step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import assert_host_is_twin, random_int8

from edgecompress.errors import BuildFailed
from edgecompress.lower.kernels.attention import AttentionMix, AttentionScores, Heads
from edgecompress.lower.kernels.layer_norm import make_layer_norm
from edgecompress.lower.kernels.requant import make_requantize
from edgecompress.lower.kernels.select import Select

OUTPUT = (0.03, -11, -128, 127)


def requantize(real: float, inner: int):
    return make_requantize(
        np.array([real]), form="smmla", zero_point=4, low=-128, high=127,
        accumulator_bound=255 * 255 * inner,
    )  # fmt: skip


def test_host_is_twin() -> None:
    cases = []
    for heads in (Heads(5, 7, 2, 3), Heads(1, 1, 1, 1), Heads(6, 6, 4, 8)):
        rows, features = heads.other, heads.count * heads.size
        q, kv = random_int8(1, heads.time, features), random_int8(1, rows, features, seed=1)
        weights = random_int8(heads.count, heads.time, rows, seed=2)
        scale, tables = requantize(2e-3, heads.size)
        cases.append((AttentionScores(heads, (3, -8), scale), [q, kv], list(tables)))
        scale, tables = requantize(5e-3, rows)
        cases.append((AttentionMix(heads, (-128, 7), scale), [weights, kv], list(tables)))
    for shape in ((1, 6, 16), (1, 33), (1, 2, 700)):
        gamma, beta = np.linspace(-2, 2, shape[-1]), np.linspace(-1, 1, shape[-1])
        kernel, constants = make_layer_norm(shape, gamma, beta, 1e-5, 0.05, OUTPUT)
        cases.append((kernel, [random_int8(*shape, seed=3)], list(constants)))
    cases.append((Select((1, 9, 5), 4), [random_int8(1, 9, 5)], []))
    assert_host_is_twin(cases)


def test_attention_is_that_of_numpy() -> None:
    heads = Heads(5, 7, 2, 3)
    q, k, v = (random_int8(1, n, 6, seed=n) for n in (5, 7, 7))
    weights = random_int8(2, 5, 7, seed=9)
    scale, tables = requantize(1e-3, 3)
    ours = AttentionScores(heads, (3, -8), scale).reference(q, k, *tables)
    for head in range(2):
        columns = slice(3 * head, 3 * head + 3)
        left = q[0, :, columns].astype(int) - 3
        right = k[0, :, columns].astype(int) + 8
        assert np.abs(ours[head] - (left @ right.T * 1e-3 + 4)).max() <= 0.5 + 1e-6
    mixed = AttentionMix(heads, (-128, 7), scale).reference(weights, v, *tables)
    left = weights[1].astype(int) + 128
    right = v[0, :, 3:].astype(int) - 7
    expected = np.clip(left @ right * 1e-3 + 4, -128, 127)
    assert np.abs(mixed[0, :, 3:] - expected).max() <= 0.5 + 1e-6


@settings(max_examples=60, deadline=None)
@given(
    row=st.lists(st.integers(-128, 127), min_size=2, max_size=300),
    scale=st.floats(1e-3, 1.0),
    gain=st.floats(0.05, 3.0),
)
def test_layer_normalization_is_the_real_one_within_a_unit(
    row: list[int], scale: float, gain: float
) -> None:
    x = np.array([row], np.int8)
    gamma, beta = np.full(len(row), gain), np.linspace(-1, 1, len(row))
    kernel, constants = make_layer_norm(x.shape, gamma, beta, 1e-5, scale, OUTPUT)
    real = x.astype(np.float64) * scale
    centred = real - real.mean()
    expected = centred / np.sqrt((centred**2).mean() + 1e-5) * gamma + beta
    stored = np.clip(expected / OUTPUT[0] + OUTPUT[1], -128, 127)
    assert np.abs(kernel.reference(x, *constants) - stored).max() <= 0.51


def test_a_constant_row_gives_the_bias() -> None:
    gamma, beta = np.ones(8), np.linspace(-1, 1, 8)
    kernel, constants = make_layer_norm((1, 8), gamma, beta, 1e-5, 1e-4, OUTPUT)
    expected = np.floor(beta / OUTPUT[0] + OUTPUT[1] + 0.5)
    ours = kernel.reference(np.full((1, 8), 93, np.int8), *constants)[0]
    assert np.abs(ours - expected).max() <= 1


def test_more_features_than_the_arithmetic_holds_are_refused() -> None:
    with pytest.raises(BuildFailed, match="9000 features"):
        make_layer_norm((1, 9000), np.ones(9000), np.zeros(9000), 1e-5, 0.1, OUTPUT)
