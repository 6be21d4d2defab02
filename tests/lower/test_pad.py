from __future__ import annotations

import numpy as np
import pytest
from litert import TinyModel
from operators import assert_host_is_twin, litert_difference, random_int8

from edgecompress.lower.kernels.pad import Pad

KERNELS = [
    Pad((1, 3, 4, 5), (0, 1, 2, 0), (0, 0, 1, 3), -7),
    Pad((1, 3, 4, 5), (0, 0, 0, 0), (0, 0, 0, 0), -7),
    Pad((1, 3), (0, 1), (0, 0), 127),
]


def test_host_is_twin() -> None:
    assert_host_is_twin([(kernel, [random_int8(*kernel.shape)], []) for kernel in KERNELS])


def test_the_middle_is_the_input_and_the_rest_the_fill() -> None:
    x = random_int8(1, 3, 4, 5)
    padded = KERNELS[0].reference(x)
    assert padded.shape == (1, 4, 7, 8)
    np.testing.assert_array_equal(padded[:, 1:, 2:6, :5], x)
    assert (padded == -7).sum() - (x == -7).sum() == padded.size - x.size


@pytest.mark.parametrize("filled", [None, -128, 9])
def test_the_same_as_litert(filled: int | None) -> None:
    model, parameters = TinyModel(), (0.05, -7)
    x = model.tensor((1, 4, 3, 2), *parameters)
    widths = np.array([[0, 0], [1, 2], [0, 1], [3, 0]], np.int32)
    inputs = [x, model.tensor((4, 2), data=widths)]
    if filled is not None:
        inputs.append(model.tensor((1,), *parameters, np.array([filled], np.int8)))
    y = model.tensor((1, 7, 4, 5), *parameters)
    model.operator("PAD" if filled is None else "PADV2", inputs, y)
    assert litert_difference(model.content([x], [y]), "smmla") == 0
