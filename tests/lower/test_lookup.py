from __future__ import annotations

import numpy as np
import pytest
from operators import (
    assert_host_is_twin,
    litert_difference,
    match_model,
    random_int8,
    unary_model,
)

from edgecompress.lower.kernels.lookup import Lookup

CASES = [
    ("RELU", (0.05, 3), (0.03, -128), {}),
    ("RELU", (0.05, 3), (0.05, 3), {}),
    ("RELU6", (0.05, 3), (6 / 255, -128), {}),
    ("QUANTIZE", (0.05, 3), (0.03, -20), {}),
    ("QUANTIZE", (0.05, 3), (0.01, -20), {}),
    ("QUANTIZE", (0.05, 3), (0.7, -20), {}),
    ("LEAKY_RELU", (0.05, 3), (0.04, -20), {"alpha": 0.1}),
    ("LOGISTIC", (0.05, 3), (1 / 256, -128), {}),
    ("LOGISTIC", (0.2, -40), (1 / 256, -128), {}),
    ("TANH", (0.05, 3), (1 / 128, 0), {}),
    ("TANH", (0.003, 3), (1 / 128, 0), {}),
    ("HARD_SWISH", (0.05, 3), (0.03, -110), {}),
    ("HARD_SWISH", (0.1, -7), (0.012, -50), {}),
]


@pytest.mark.parametrize(("name", "first", "second", "options"), CASES)
def test_litert(name: str, first: tuple, second: tuple, options: dict) -> None:
    """On all 256 values: noise of 256 elements a sample sees each many times."""
    content = unary_model(name, first, second, **options)
    assert litert_difference(content, "tflite") == 0
    assert litert_difference(content, "smmla") <= 1


@pytest.mark.parametrize(
    ("name", "function"),
    [("ABS", np.abs), ("LOGISTIC", lambda x: 1 / (1 + np.exp(-x)))],
)
def test_default_table_is_the_rounded_function(name: str, function: object) -> None:
    match, _ = match_model(unary_model(name, (0.05, 3), (0.03, -20)), "smmla")
    scale, output_scale = float(np.float32(0.05)), float(np.float32(0.03))
    real = function((np.arange(-128, 128) - 3) * scale) / output_scale - 20
    assert isinstance(match.kernel, Lookup)
    np.testing.assert_array_equal(match.constants[0], np.clip(np.round(real), -128, 127))


def test_host_is_twin() -> None:
    assert_host_is_twin(
        [
            (Lookup(shape), [random_int8(*shape)], [random_int8(256, seed=5)])
            for shape in [(1, 3, 4, 5), (7,), (1, 1)]
        ]
    )
