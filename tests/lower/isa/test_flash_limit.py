"""The rate of flash rises only as far as it must, and only where codecs can help."""

from __future__ import annotations

import numpy as np
import pytest
from chain import chain
from conv_cases import Case, convolution

from edgecompress.lower.kernels.conv2d import Window
from edgecompress.lower.passes.choice import byte_worth
from edgecompress.lower.passes.flash_limit import most_saved_bytes, within_flash
from edgecompress.lower.program import Program


@pytest.fixture(scope="module")
def program() -> Program:
    """One layer of int8, one of four bits with 64 weights."""
    first = convolution(Window((1, 4, 4, 8), (1, 1)), 8, seed=1)
    second = convolution(Window((1, 4, 4, 8), (1, 1)), 8, seed=2)
    weights, *rest = second.constants
    small = Case(second.kernel, second.activations, ((weights // 16).astype(np.int8), *rest))
    return chain([first, small])


def test_what_codecs_could_save(program):
    assert most_saved_bytes(program) == 32


@pytest.mark.parametrize(
    ("goal", "fits_from", "over", "tried"),
    [
        ("balanced", 0.0, 10, ["balanced"]),
        ("balanced", 1e-4, 10, ["balanced", 5e-3, 3e-4, 1e-4, 3e-5]),
        ("balanced", 4e-3, 10, ["balanced", 5e-3, 3e-4, 7e-4]),
        ("speed", 5e-6, 10, ["speed", 5e-3, 1e-4, 1e-5, 2e-6]),
        ("size", 4e-3, 10, ["size", 5e-3]),
        ("balanced", 1.0, 10, ["balanced", 5e-3]),
        ("balanced", 1e-4, 33 + 4096, ["balanced"]),
    ],
)
def test_rates(program, goal, fits_from, over, tried):
    asked = []

    def attempt(rate):
        asked.append(rate)
        return rate, 0 if byte_worth(rate) >= fits_from else over

    found = within_flash(program, goal, attempt)
    assert asked == tried
    if byte_worth(found) < fits_from:
        assert found == goal  # nothing is smaller: as asked for
    else:
        lower = [rate for rate in asked if byte_worth(rate) < byte_worth(found)]
        assert all(byte_worth(rate) < fits_from for rate in lower)


def test_where_nothing_fits_the_smallest_is_kept(program):
    """So that who plans again learns how much is missing with every codec in use."""

    def attempt(rate):
        return rate, 30 if rate == "balanced" else 5

    assert within_flash(program, "balanced", attempt) == 5e-3
