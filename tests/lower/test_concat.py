from __future__ import annotations

import numpy as np
from litert import TinyModel
from operators import assert_host_is_twin, litert_difference, random_int8

from edgecompress.lower.kernels.concat import Concat

SHAPES = ((1, 2, 2, 3), (1, 2, 2, 1), (1, 2, 2, 4))


def test_host_is_twin() -> None:
    parts = [random_int8(*shape) for shape in SHAPES]
    table = random_int8(256, seed=3)
    other = (1, 1, 2, 3)
    assert_host_is_twin(
        [
            (Concat(SHAPES, 3, (False, True, False)), parts, [table]),
            (Concat(SHAPES, 3, (True, False, True)), parts, [table, table]),
            (Concat((SHAPES[0], other), 1, (False, False)), [parts[0], random_int8(*other)], []),
        ]
    )


def test_a_rescaled_part_goes_through_its_table() -> None:
    parts = [random_int8(*shape) for shape in SHAPES]
    negated = np.clip(-np.arange(-128, 128), -128, 127).astype(np.int8)
    joined = Concat(SHAPES, 3, (False, True, False)).reference(*parts, negated)
    np.testing.assert_array_equal(joined[..., :3], parts[0])
    np.testing.assert_array_equal(joined[..., 3:4], np.clip(-parts[1].astype(int), -128, 127))
    np.testing.assert_array_equal(joined[..., 4:], parts[2])


def test_litert() -> None:
    model = TinyModel()
    parts = [model.tensor(shape, 0.05, 3) for shape in SHAPES]
    y = model.tensor((1, 2, 2, 8), 0.05, 3)
    model.operator("CONCATENATION", parts, y, axis=3)
    content = model.content(parts, [y])
    assert litert_difference(content, "tflite") == 0
    assert litert_difference(content, "smmla") == 0
