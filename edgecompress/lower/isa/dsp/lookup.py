"""A table of 256 for Thumb-2: two loads and a store an element, four elements a round.

The table is turned by half, so that the int8's own bits are the index. One routine of about 80
bytes serves every layer: [rounds of four, elements left over, the table].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgecompress.lower.isa.dsp.asm import cycles, instruction_count, routine
from edgecompress.lower.isa.interface import Cost, Implementation
from edgecompress.lower.kernels.lookup import Lookup

if TYPE_CHECKING:
    from edgecompress.lower.program import Kernel

_SYMBOL = "lookup"
_ELEMENT = ["ldrb r5, [r0], #1", "ldrb r5, [r1, r5]", "strb r5, [r2], #1"]
_START = ["push {r4-r6, lr}", "ldmia r1!, {r3, r4}", "cbz r3, 2f"]
_ROUND = ["subs r3, #1", *_ELEMENT * 4, "bne 1b"]
_BETWEEN = ["cbz r4, 4f"]
_SINGLE = ["subs r4, #1", *_ELEMENT, "bne 3b"]
_END = ["pop {r4-r6, pc}"]
_TEXT = routine(_SYMBOL, [*_START, "1:", *_ROUND, "2:", *_BETWEEN, "3:", *_SINGLE, "4:", *_END])


@dataclass(frozen=True)
class LookupGenerator:
    """`Lookup` of any shape. The output may lie exactly on the input."""

    def implement(self, kernel: Kernel, constants: tuple[np.ndarray, ...]) -> list[Implementation]:
        if not isinstance(kernel, Lookup):
            return []
        rounds, rest = divmod(int(np.prod(kernel.shape)), 4)
        header = np.array([rounds, rest], np.int32).view(np.int8)
        often = [(1, _START + _BETWEEN + _END), (rounds, _ROUND), (rest, _SINGLE)]
        cost = Cost(
            instructions=sum(times * instruction_count(lines) for times, lines in often),
            cycles=sum(times * cycles(lines) for times, lines in often),
            code_bytes=0,  # all of it shared
        )
        return [
            Implementation(
                symbol=_SYMBOL,
                constants=(np.concatenate([header, np.roll(constants[0], 128)]),),
                cost=cost,
                description="dsp lookup, 4 elements",
                assembly={_SYMBOL: _TEXT},
                in_place_arguments=(0,),
            )
        ]
