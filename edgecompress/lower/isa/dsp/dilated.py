"""Dilated depthwise convolutions for Thumb-2 with DSP: undilated ones on every d-th pixel.

Outputs at places r, r + d, r + 2d, ... of an axis read inputs of one phase only, and these lie
as far apart in memory: each pair of phases, of rows and of columns, is a depthwise convolution
without dilation, and `depthwise.py` takes it. Phases of one size share a routine and a constant.
With stride s, outputs d / gcd(s, d) apart do, at stride s / gcd(s, d).

    dilated driver(x, constant, scratch, y):  for each phase  routine(x + a, constant + b, scratch,
                                                                      y + c)
    constant    [a, c, b of each phase] [the routine's constant of each size of phase]

Example: 3x3 with dilation 2 on 16 x 16 pixels is four 3x3 convolutions on 8 x 8; on 15 x 15 they
are of 8 x 8, 8 x 7, 7 x 8 and 7 x 7.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from math import gcd
from typing import TYPE_CHECKING

import numpy as np

from edgecompress.lower.isa.dsp.asm import cycles, instruction_count, load_constant, routine
from edgecompress.lower.isa.dsp.depthwise import (
    SCRATCH_BYTES,
    Axis,
    PairedAxis,
    Plan,
    common_shift,
    implementation,
    plan_axes,
    takes,
)
from edgecompress.lower.isa.dsp.depthwise_text import DepthwiseText
from edgecompress.lower.isa.dsp.filters import Filters, weights_of
from edgecompress.lower.isa.interface import Cost, Implementation

if TYPE_CHECKING:
    from edgecompress.lower.program import Kernel

_START = ["push {r4-r9, lr}", "sub sp, #4", "mov r4, r0", "mov r5, r1", "mov r6, r2", "mov r7, r3",
          "mov r8, r1"]  # fmt: skip
_CALL = ["ldm r8!, {r0, r2, r3}", "add r0, r4", "add.w r1, r5, r3", "add.w r3, r7, r2",
         "mov r2, r6", "bl", "subs.w r9, r9, #1", "bne"]  # fmt: skip
_END = ["add sp, #4", "pop {r4-r9, pc}"]


@dataclass(frozen=True)
class DilatedPlan(Plan):
    """One phase: its pixels lie further apart than channels and rows tell."""

    @property
    def symbol(self) -> str:
        steps = (self.along.input_step, self.across.input_step, self.along.output_step,
                 self.across.output_step)  # fmt: skip
        return "_".join([super().symbol, *map(str, steps)])


@dataclass(frozen=True)
class _Phase:
    """A phase's convolution and where its inputs and outputs begin, in bytes."""

    plan: DilatedPlan
    input_place: int
    output_place: int


class DilatedDepthwiseGenerator:
    """What `DepthwiseGenerator` takes, with dilation and any stride.

    Refuses besides phases without inputs, and what a phase's plan refuses.
    """

    def implement(self, kernel: Kernel, constants: tuple[np.ndarray, ...]) -> list[Implementation]:
        filters = Filters.of(kernel)
        if filters is None or filters.window.dilation == (1, 1) or not takes(filters):
            return []
        constants = (weights_of(kernel, constants[0]), *constants[1:])
        shift, left = common_shift(filters, *constants[:2])
        if shift is None:
            return []
        found = {}
        axes: tuple[PairedAxis, ...] = ("width", "height")
        for axis, most in product(axes, SCRATCH_BYTES):
            phases = _phases(filters, axis, most, shift)
            if phases:
                offer = _implementation(filters, phases, left, constants)
                found[offer.symbol] = offer
        return list(found.values())


@dataclass(frozen=True)
class _Spacing:
    """One axis of the layer, and what its phases have in common."""

    inputs: int
    outputs: int
    taps: int
    before: int
    stride: int
    dilation: int

    @property
    def phases(self) -> int:
        """Outputs so far apart read inputs `dilation` apart, or a multiple of that."""
        return self.dilation // gcd(self.stride, self.dilation)

    def axis(self, phase: int) -> tuple[Axis, int]:
        """Outputs phase, phase + p, ... with p phases (steps still 0), and their first input.

        Output phase + p t reads inputs s (phase + p t) - before + d b of tap b. With
        s p = d (s / gcd) and s phase - before = r - d m they are number (s / gcd) t + b - m of
        those at r, r + d, ...: m lie before the image.
        """
        first = self.stride * phase - self.before
        outside = max(0, -(first // self.dilation))
        first += outside * self.dilation
        inputs = len(range(first, self.inputs, self.dilation))
        made = len(range(phase, self.outputs, self.phases))
        stride = self.stride // gcd(self.stride, self.dilation)
        return Axis(inputs, outside, made, self.taps, stride, 0, 0), first


def _phases(filters: Filters, axis: PairedAxis, most_bytes: int, shift: int) -> list[_Phase]:
    """All of them; empty when one cannot be done."""
    window, made = filters.window, filters.output_channels
    _, tall, wide, channels = window.input_shape
    rows, columns = window.output_size
    vertical, horizontal = (
        _Spacing(*numbers)
        for numbers in zip(
            (tall, wide), (rows, columns), window.size, window.padding[:2], window.strides,
            window.dilation, strict=True,
        )
    )  # fmt: skip
    found = []
    for row, column in product(
        range(min(vertical.phases, rows)), range(min(horizontal.phases, columns))
    ):
        down, first_row = vertical.axis(row)
        right, first_column = horizontal.axis(column)
        down = replace(down, input_step=vertical.dilation * wide * channels,
                       output_step=vertical.phases * columns * made)  # fmt: skip
        right = replace(right, input_step=horizontal.dilation * channels,
                        output_step=horizontal.phases * made)  # fmt: skip
        plan = plan_axes(filters, (down, right), axis, most_bytes, shift)
        if plan is None:
            return []
        found.append(
            _Phase(
                DilatedPlan(**vars(plan)),
                (first_row * wide + first_column) * channels,
                (row * columns + column) * made,
            )
        )
    return sorted(found, key=lambda phase: phase.plan.symbol)


def _implementation(
    filters: Filters,
    phases: list[_Phase],
    left: int,
    constants: tuple[np.ndarray, ...],
) -> Implementation:
    parts: dict[str, Implementation] = {}
    for phase in phases:
        if phase.plan.symbol not in parts:
            writer = DepthwiseText(phase.plan)
            part = implementation(phase.plan, writer, filters, left, constants)
            parts[phase.plan.symbol] = part
    calls = {name: sum(phase.plan.symbol == name for phase in phases) for name in parts}
    symbol = _symbol(filters, phases)
    own = [(1, [*_START, *_END]), (len(phases), _CALL)]
    own += [(1, load_constant("r9", count)) for count in calls.values()]
    instructions = sum(times * instruction_count(lines) for times, lines in own)
    taken = sum(times * cycles(lines) for times, lines in own)
    for name, part in parts.items():
        instructions += calls[name] * part.cost.instructions
        taken += calls[name] * part.cost.cycles
    first = phases[0].plan
    in_place = filters.output_shape == filters.window.input_shape and all(
        phase.input_place == phase.output_place and phase.plan.works_in_place() for phase in phases
    )
    texts = {name: text for part in parts.values() for name, text in part.assembly.items()}
    return Implementation(
        symbol=symbol,
        constants=(_pack(phases, parts),),
        cost=Cost(instructions, taken, 0),
        description=f"dsp {first.kind}, {len(phases)} phases, "
        f"strips of {first.strip} outputs along the {first.axis}",
        assembly={**texts, symbol: routine(symbol, _driver(calls))},
        scratch_bytes=max(part.scratch_bytes for part in parts.values()),
        may_overlap_input=0 if in_place else None,
    )


def _driver(calls: dict[str, int]) -> list[str]:
    lines = [*_START]
    for name, count in calls.items():
        *before, _call, subtract, _branch = _CALL
        lines += [*load_constant("r9", count), "1:", *before, f"bl {name}", subtract, "bne.n 1b"]
    return [*lines, *_END]


def _symbol(filters: Filters, phases: list[_Phase]) -> str:
    """Everything the driver and its routines depend on."""
    window, plan = filters.window, phases[0].plan
    rows = {phase.plan.symbol: phase.plan.rows for phase in phases}
    numbers = [*window.input_shape[1:], *window.size, *window.strides, *window.padding,
               *window.dilation, filters.inputs, filters.outputs, *rows.values(), plan.shift,
               plan.low & 0xFF, plan.high & 0xFF]  # fmt: skip
    return "_".join(["depthwise_dilated", plan.axis, *map(str, numbers)])


def _pack(phases: list[_Phase], parts: dict[str, Implementation]) -> np.ndarray:
    places, end = {}, 12 * len(phases)
    for symbol, part in parts.items():
        places[symbol] = end
        end += part.constants[0].nbytes
    table = [
        word
        for phase in phases
        for word in (phase.input_place, phase.output_place, places[phase.plan.symbol])
    ]
    constants = [part.constants[0] for part in parts.values()]
    return np.concatenate([np.array(table, np.int32), *constants])
