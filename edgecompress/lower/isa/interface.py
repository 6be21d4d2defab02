"""How an instruction set offers faster code for a kernel, and what it hands over.

A `Generator` looks at one kernel with its constants and returns an `Implementation`, or None for
a shape it refuses; the kernel's own TIR then stays, as the named fallback. Whatever a generator
returns computes exactly `kernel.reference`.

    specialize(program, profile):  for each step
        offers = [generator.implement(kernel, constants) for generator in generators_for(core)]
        the cheapest offer replaces the step's function and constants; none, or none cheaper
        than `portable.py` says the TIR is, leaves the TIR

Example: a 3x3 convolution on a Cortex-M7 becomes a TIR driver that walks over output pixels, calls
an assembly routine that widens the pixels' inputs into scratch, and another that multiplies them
with weights packed in the order it reads them.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from tvm import tirx

    from edgecompress.lower.program import Kernel


@dataclass(frozen=True)
class Cost:
    """What one inference of the layer takes, predicted from the generated code.

    `cycles` is by the core's table (estimate); `code_bytes` counts code no other layer shares.
    """

    instructions: int
    cycles: int
    code_bytes: int


@dataclass(frozen=True)
class WeightStream:
    """Where an implementation's only constant holds its weights, all counts in words.

    After `header` come `groups` times [before] [weights] [after], each for `channels`. A `mixed`
    half word holds 256 * B + A, others two bytes. The code may be called for some of the groups at
    a time where the header's word `channels_at` says how many channels there are; `once` is what
    each such call takes whatever their number, as (instructions, cycles).
    """

    header: int
    before: int
    weights: int
    after: int
    groups: int
    channels: int
    mixed: bool
    channels_at: int | None = None
    once: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Implementation:
    """Code and data that replace a kernel's TIR on one instruction set.

    The step then calls `symbol(activations..., constants..., [scratch], output)`.

    Attributes:
        symbol: the C function: `driver`'s global_symbol, or an assembly routine called directly.
        driver: scheduled TIR outer loops that reach the routines through `call_extern`; None when
            `symbol` is assembly.
        assembly: routine name -> GNU assembler text defining that one global function in a
            section of its own. Equal names have equal text, so layers share routines.
        constants: packed weights with biases and multipliers, in the order the code streams them.
        scratch_bytes: working memory in the arena, live during this step only, 8-byte aligned.
        may_overlap_input: bytes by which the output may start after the first input's start in
            the same memory (0: exactly in place; negative: it must start that much earlier);
            None when they must be apart.
        in_place_arguments: further activation arguments the output may lie exactly over, if they
            die at the step (a residual sum over what it is added to).
        cost: predicted.
        description: for reports, as "dsp conv 6 pixels x 1 channel".
        codec: the `lower.codec` its weights are stored by; empty for plain int8.
        stream: where its weights lie, for codecs that decode them before.
        saved_bytes, spent_instructions: of the codec, against the fastest offer without one; set
            by `passes.specialize`.
        portable: the kernel's own TIR; the step then stays as it is.
    """

    symbol: str
    constants: tuple[np.ndarray, ...]
    cost: Cost
    description: str
    driver: tirx.PrimFunc | None = None
    assembly: dict[str, str] = field(default_factory=dict)
    scratch_bytes: int = 0
    may_overlap_input: int | None = None
    in_place_arguments: tuple[int, ...] = ()
    codec: str = ""
    stream: WeightStream | None = None
    saved_bytes: int = 0
    spent_instructions: int = 0
    portable: bool = False

    @cached_property
    def routines(self) -> frozenset[str]:
        """Symbols of the code it brings along."""
        driver = {self.symbol} if self.driver is not None else set()
        return frozenset(driver | set(self.assembly))

    @property
    def constant_bytes(self) -> int:
        return sum(array.nbytes for array in self.constants)


class Generator(Protocol):
    """One kind of kernel on one instruction set: a file of `lower/isa/<set>/`."""

    def implement(self, kernel: Kernel, constants: tuple[np.ndarray, ...]) -> list[Implementation]:
        """Every tiling this generator can make of the kernel; empty when it refuses the shape.

        Args:
            constants: the step's constant arguments in `kernel.compute`'s order.
        """
        ...


class Remembered:
    """A generator that keeps its last answer: another may build on the very kernels it offered."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._asked: tuple[Kernel, tuple[np.ndarray, ...]] | None = None
        self._answer: list[Implementation] = []

    def implement(self, kernel: Kernel, constants: tuple[np.ndarray, ...]) -> list[Implementation]:
        if not self._is_last(kernel, constants):
            self._answer = self._generator.implement(kernel, constants)
            self._asked = (kernel, constants)
        return self._answer

    def _is_last(self, kernel: Kernel, constants: tuple[np.ndarray, ...]) -> bool:
        if self._asked is None or self._asked[0] != kernel:
            return False
        asked = self._asked[1]
        return len(asked) == len(constants) and all(map(operator.is_, asked, constants))
