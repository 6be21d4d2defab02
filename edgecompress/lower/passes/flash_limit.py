"""Flash that does not suffice makes bytes dearer: codecs take over, the cheapest layers first.

goal asked for -> too large -> dearest rate -> too large: nothing helps, the goal stays
                                           -> fits: the cheapest rate between that fits
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from edgecompress.lower.codec import CODECS
from edgecompress.lower.passes.choice import Goal, byte_worth
from edgecompress.lower.program import Program

T = TypeVar("T")

_RATES = (3e-5, 1e-4, 3e-4, 7e-4, 5e-3)
"""A layer's bytes are given for its share of the cycles: 1 KiB for 3, 10, 30, 70 or 500 %."""


def has_codecs(program: Program) -> bool:
    """True if some layer's weights would be smaller in a codec.

    Args:
        program: the portable one, whose weights are plain int8.
    """
    return any(
        codec.takes(array) and codec.encoded_bytes(array) < array.nbytes
        for array in program.constants
        if array.dtype == "int8" and array.ndim > 1
        for codec in CODECS
    )


def within_flash(optimize: Goal, attempt: Callable[[Goal], tuple[T, int]]) -> T:
    """The result of the lowest rate, from the goal asked for on, that fits the flash.

    Args:
        attempt: builds at a rate, and says by how many bytes the result is too large (0: it fits).

    Returns:
        The result at the goal asked for where no rate fits.
    """
    first, over = attempt(optimize)
    rates = [rate for rate in _RATES if rate > byte_worth(optimize)]
    if over <= 0 or not rates:
        return first
    last, over = attempt(rates[-1])
    if over > 0:
        return first
    for rate in rates[:-1]:
        result, over = attempt(rate)
        if over <= 0:
            return result
    return last
