"""GRU and LSTM kernels: the host's code equals the twin, the twin follows the real layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from host_kernels import HostKernels
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress.errors import BuildFailed
from edgecompress.lower.kernels import gates
from edgecompress.lower.kernels.gates import QuantizedRows, StateOutput, gate_constants
from edgecompress.lower.kernels.gru import Gru
from edgecompress.lower.kernels.lstm import Lstm
from edgecompress.lower.kernels.recurrence import Sequence

SCALE, ZERO_POINT = 0.02, -9
KINDS = {"gru": (Gru, torch.nn.GRU, 3), "lstm": (Lstm, torch.nn.LSTM, 4)}
SIZES = [(7, 5, 6), (1, 1, 1), (12, 3, 16)]


def quantized_rows(weight: torch.Tensor, bias: torch.Tensor) -> QuantizedRows:
    """The layer's own rows on int8 grids; the layer keeps the rounded values."""
    rows = weight.detach().numpy().astype(np.float64)
    scale = np.maximum(np.abs(rows).max(1) / 127, 1e-9)
    values = np.clip(np.rint(rows / scale[:, None]), -127, 127).astype(np.int8)
    weight.data = torch.from_numpy((values * scale[:, None]).astype(np.float32))
    return QuantizedRows(values, scale, bias.detach().numpy().astype(np.float64))


def made(kind: str, sizes: tuple[int, int, int], *, every: bool, reverse: bool, gain: float = 1.0):
    """(kernel, constants, torch layer) with random weights."""
    kernel, layer_type, gate_count = KINDS[kind]
    steps, inputs, hidden = sizes
    torch.manual_seed(sum(sizes))
    layer = layer_type(inputs, hidden, batch_first=True)
    for parameter in layer.parameters():
        parameter.data *= gain
    w = quantized_rows(layer.weight_ih_l0, layer.bias_ih_l0)
    r = quantized_rows(layer.weight_hh_l0, layer.bias_hh_l0)
    packed = gate_constants(w, r, gates=gate_count, input_scale=SCALE, input_zero_point=ZERO_POINT)
    sequence = Sequence(steps, inputs, hidden, every, reverse)
    output = StateOutput.of(1 / 120, 3, -128, 127)
    return kernel(sequence, packed.shift, output), (*packed.arrays, gates.sigmoid_table()), layer


def test_host_is_twin() -> None:
    random = np.random.default_rng(0)
    cases, inputs = [], []
    for kind in KINDS:
        for sizes in SIZES:
            for every, reverse in ((True, True), (False, False)):
                kernel, constants, _ = made(kind, sizes, every=every, reverse=reverse, gain=3.0)
                x = random.integers(-128, 128, (1, *sizes[:2])).astype(np.int8)
                scratch = [np.full(s.shape, 77, s.dtype) for s in kernel.scratch]
                cases.append((kernel, [x, *constants, *scratch]))
                inputs.append((kernel, x, constants))
    built = HostKernels(cases)
    for index, (kernel, x, constants) in enumerate(inputs):
        expected = kernel.reference(x, *constants)
        np.testing.assert_array_equal(built.run(index, *cases[index][1]), expected)
        assert expected.shape == kernel.sequence.output_shape


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reverse", [False, True])
def test_follows_the_real_layer(kind: str, reverse: bool) -> None:
    kernel, constants, layer = made(kind, (50, 4, 24), every=True, reverse=reverse, gain=2.0)
    x = np.random.default_rng(1).integers(-128, 128, (1, 50, 4)).astype(np.int8)
    real = torch.from_numpy((x.astype(np.float32) - ZERO_POINT) * SCALE)
    with torch.no_grad():
        states = layer(real.flip(1) if reverse else real)[0]
    expected = (states.flip(1) if reverse else states).numpy() * 120 + 3
    ours = kernel.reference(x, *constants).astype(np.float64)
    assert np.abs(expected).max() > 60
    assert np.abs(ours - np.clip(expected, -128, 127)).max() <= 1.0
    last, constants, _ = made(kind, (50, 4, 24), every=False, reverse=reverse, gain=2.0)
    np.testing.assert_array_equal(last.reference(x, *constants)[0], ours[0, 0 if reverse else -1])


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=50))
@settings(max_examples=50, deadline=None)
def test_sigmoid_and_tanh_are_within_the_promised_error(totals: list[int]) -> None:
    table, total = gates.sigmoid_table(), np.array(totals, np.int32)
    real = np.clip(total / 2**gates.SUM_BITS, -60, 60)
    ours = gates.sigmoid(table, total) / 2**15
    assert np.abs(ours - 1 / (1 + np.exp(-real))).max() <= 3.5e-4
    assert np.abs(gates.tanh(table, total) / 2**15 - np.tanh(real)).max() <= 7e-4


def test_the_cell_of_an_lstm_cannot_overflow_while_its_gates_stand_open() -> None:
    """c grows by one a step: 2000 steps of open gates end in tanh(c) = 1."""
    rows = QuantizedRows(np.zeros((4, 1), np.int8), np.full(4, 0.01), np.full(4, 8.0))
    state = QuantizedRows(np.zeros((4, 1), np.int8), np.full(4, 0.01), np.zeros(4))
    packed = gate_constants(rows, state, gates=4, input_scale=0.1, input_zero_point=0)
    kernel = Lstm(
        Sequence(2000, 1, 1, every=False, reverse=False),
        packed.shift,
        StateOutput.of(1 / 127, 0, -128, 127),
    )
    x = np.zeros((1, 2000, 1), np.int8)
    assert kernel.reference(x, *packed.arrays, gates.sigmoid_table()).item() == 127


def test_too_many_units_are_refused() -> None:
    rows = QuantizedRows(np.full((1800, 600), 127, np.int8), np.full(1800, 1e-3), np.zeros(1800))
    inputs = QuantizedRows(np.ones((1800, 2), np.int8), np.full(1800, 1e-3), np.zeros(1800))
    with pytest.raises(BuildFailed, match="accumulator may reach"):
        gate_constants(inputs, rows, gates=3, input_scale=0.1, input_zero_point=0)
