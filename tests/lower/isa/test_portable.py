"""What kernels' own TIR is said to cost, against what it costs on the virtual board."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from board import Board
from conv_cases import Case, added, convolution
from test_dsp_other_depthwise import depthwise

from edgecompress.lower.isa.interface import Cost, Implementation
from edgecompress.lower.isa.portable import portable_offer, with_portable
from edgecompress.lower.kernels.add import Add, single_rounding
from edgecompress.lower.kernels.conv2d import Window
from edgecompress.lower.kernels.dense import Dense
from edgecompress.lower.kernels.max_pool2d import MaxPool2d
from edgecompress.lower.kernels.pooling import Window as PoolWindow
from edgecompress.lower.kernels.primfunc import build_function
from edgecompress.lower.kernels.requant import make_requantize
from edgecompress.lower.kernels.softmax import Softmax
from edgecompress.lower.passes.specialize import choose

SAME = (1, 1, 1, 1)


def dense(inputs: int, outputs: int) -> Case:
    random = np.random.default_rng(inputs)
    requantize, tables = make_requantize(
        random.uniform(0.001, 0.002, outputs), form="smmla", zero_point=0, low=-128, high=127,
        accumulator_bound=1 << 24,
    )  # fmt: skip
    weights = random.integers(-127, 128, (outputs, inputs)).astype(np.int8)
    x = random.integers(-128, 128, (1, inputs)).astype(np.int8)
    constants = (weights, np.zeros(outputs, np.int32), *tables)
    return Case(Dense((1, inputs), outputs, requantize), (x,), constants)


def others() -> list[Case]:
    shape = (1, 9, 8, 8)
    x, y = (
        np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8) for seed in (0, 1)
    )
    total = Add(shape, shape, single_rounding((0.05, 0.13, 0.1), (-7, 5, 3)))
    pool = MaxPool2d(PoolWindow(shape, (3, 3), (2, 2), SAME))
    return [Case(total, (x, y), ()), Case(pool, (x,), ())]


CASES = [
    convolution(Window((1, 9, 8, 8), (3, 3), (1, 1), SAME), 8),
    convolution(Window((1, 9, 8, 16), (3, 3)), 12),
    convolution(Window((1, 12, 12, 8), (1, 1)), 16),
    convolution(Window((1, 12, 12, 3), (3, 3), (2, 2), SAME), 8),
    convolution(Window((1, 8, 8, 12), (3, 3), (1, 1), SAME), 12, groups=4),
    added(convolution(Window((1, 9, 8, 8), (3, 3), (1, 1), SAME), 8)),
    depthwise(Window((1, 9, 8, 8), (3, 3), (1, 1), SAME), 1),
    depthwise(Window((1, 9, 8, 6), (3, 3), (2, 2), SAME), 2),
    depthwise(Window((1, 9, 8, 8), (5, 5)), 1),
    dense(64, 32),
    dense(130, 10),
]


def test_predictions_are_near_the_counts() -> None:
    cases = [*CASES, *others()]
    built = []
    for index, case in enumerate(cases):
        kinds = [(array.shape, str(array.dtype)) for array in (*case.activations, *case.constants)]
        function = build_function(case.kernel, kinds, f"kernel_{index}")
        built.append(
            Implementation(f"kernel_{index}", case.constants, Cost(0, 0, 0), "", driver=function)
        )
    board = Board(built, "cortex-m4")
    ratios = []
    for index, case in enumerate(cases):
        offer = portable_offer(case.kernel, case.constants, f"kernel_{index}")
        assert offer is not None
        assert offer.portable
        outcome = board.run(index, case.activations, case.expected.shape)
        np.testing.assert_array_equal(outcome.output, case.expected)
        ratios.append(offer.cost.instructions / outcome.instructions)
        assert 0.5 < ratios[-1] < 1.8, case
        assert 1.1 < offer.cost.cycles / offer.cost.instructions < 1.6
    assert 0.8 < np.median(ratios) < 1.2


def test_kinds_without_a_known_cost_have_no_offer() -> None:
    kernel = Softmax((1, 10))
    assert portable_offer(kernel, (), "softmax") is None


@pytest.mark.parametrize("slower", [True, False])
def test_an_offer_dearer_than_tir_loses(slower: bool) -> None:
    case = CASES[0]
    own = portable_offer(case.kernel, case.constants, "kernel")
    assert own is not None
    cycles = own.cost.cycles + (1 if slower else -1)
    offer = replace(own, portable=False, symbol="routine", cost=Cost(cycles, cycles, 0))
    offers = with_portable([offer], case.kernel, case.constants, "kernel")
    (chosen,) = choose([offers], "speed")
    assert chosen is not None
    assert chosen.portable == slower
    coded = replace(offer, codec="bitmap")
    assert with_portable([coded], case.kernel, case.constants, "kernel") == [coded]
    assert with_portable([], case.kernel, case.constants, "kernel") == []
