"""Flash that does not suffice makes bytes dearer: codecs take over, the cheapest layers first.

goal asked for -> too large -> dearest rate -> too large: the smaller of the two
                                           -> fits: the lowest rate between that fits
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from edgecompress.lower.codec import CODECS
from edgecompress.lower.kernels.conv2d import Conv2D
from edgecompress.lower.kernels.conv2d_add import Conv2DAdd
from edgecompress.lower.kernels.dense import Dense
from edgecompress.lower.passes.choice import Goal, byte_worth
from edgecompress.lower.program import Program

T = TypeVar("T")

_RATES = (2e-6, 1e-5, 3e-5, 1e-4, 3e-4, 7e-4, 5e-3)
"""What a byte may be worth of the program's cycles: 1 KiB 0.2, 1, 3, 10, 30, 70 or 500 %."""
_SAVED_CODE_BYTES = 4096
"""What smaller routines may save beside the weights: a few of them, of one to two KiB each."""


def within_flash(program: Program, optimize: Goal, attempt: Callable[[Goal], tuple[T, int]]) -> T:
    """The result of the lowest rate, from the goal asked for on, that fits the flash.

    Args:
        program: the portable one, whose weights are plain int8; tells when to give up at once.
        attempt: builds at a rate, and says by how many bytes the result is too large (0: it fits).

    Returns:
        Where no rate fits, the smallest result: it says how much is really missing.
    """
    first, first_over = attempt(optimize)
    rates = [rate for rate in _RATES if rate > byte_worth(optimize)]
    out_of_reach = first_over > most_saved_bytes(program) + _SAVED_CODE_BYTES
    if first_over <= 0 or not rates or out_of_reach:
        return first
    best, over = attempt(rates.pop())
    if over > 0:
        return best if over < first_over else first
    while rates:
        middle = len(rates) // 2
        result, over = attempt(rates[middle])
        if over <= 0:
            best, rates = result, rates[:middle]
        else:
            rates = rates[middle + 1 :]
    return best


def most_saved_bytes(program: Program) -> int:
    """Bytes the best codec of each layer would save in the portable program's weights."""
    saved = 0
    for step in program.steps:
        if not isinstance(step.kernel, Conv2D | Conv2DAdd | Dense):
            continue
        weights = next(
            program.constants[int(item.name)] for item in step.arguments if item.kind == "constant"
        )
        sizes = [codec.encoded_bytes(weights) for codec in CODECS if codec.takes(weights)]
        saved += weights.nbytes - min([weights.nbytes, *sizes])
    return saved
