"""Dilated depthwise convolutions for Thumb-2 with DSP: undilated ones on every d-th pixel.

Outputs at places r, r + d, r + 2d, ... of an axis read inputs of one phase only, and these lie
as far apart in memory: each pair of phases, of rows and of columns, is a depthwise convolution
without dilation, and `depthwise.py` takes it. Phases of one size share a routine and a constant.

    dilated driver(x, constant, scratch, y):  for each phase  routine(x + a, constant + b, scratch,
                                                                      y + c)
    constant    [a, c, b of each phase] [the routine's constant of each size of phase]

Example: 3x3 with dilation 2 on 16 x 16 pixels is four 3x3 convolutions on 8 x 8; on 15 x 15 they
are of 8 x 8, 8 x 7, 7 x 8 and 7 x 7.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
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
)
from edgecompress.lower.isa.dsp.depthwise_text import DepthwiseText
from edgecompress.lower.isa.interface import Cost, Implementation
from edgecompress.lower.kernels.depthwise_conv2d import DepthwiseConv2D

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
    """`DepthwiseConv2D` of stride 1 with dilation, at least four channels, one filter each.

    Refuses besides what `DepthwiseGenerator` refuses without dilation, and phases without inputs.
    """

    def implement(self, kernel: Kernel, constants: tuple[np.ndarray, ...]) -> list[Implementation]:
        if not isinstance(kernel, DepthwiseConv2D) or not _takes(kernel):
            return []
        shift, left = common_shift(kernel, *constants[:2])
        if shift is None:
            return []
        found = {}
        axes: tuple[PairedAxis, ...] = ("width", "height")
        for axis, most in product(axes, SCRATCH_BYTES):
            phases = _phases(kernel, axis, most, shift)
            if phases:
                offer = _implementation(kernel, phases, left, constants)
                found[offer.symbol] = offer
        return list(found.values())


def _takes(kernel: DepthwiseConv2D) -> bool:
    window = kernel.window
    return (
        kernel.requantize.form == "smmla"
        and kernel.multiplier == 1
        and window.input_shape[0] == 1
        and window.input_shape[3] >= 4
        and window.dilation != (1, 1)
        and window.strides == (1, 1)
        and min(window.output_size) > 0
    )


def _phase_axis(
    phase: int, pixels: int, outputs: int, taps: int, before: int, dilation: int
) -> tuple[Axis, int]:
    """Outputs phase, phase + d, ... of an axis (steps still 0), and their first input's place.

    Output phase + d t reads inputs d (t + b) + phase - before: with phase - before = d m + r they
    are number t + b + m of those at r, r + d, ...
    """
    whole, first = divmod(phase - before, dilation)
    inputs = len(range(first, pixels, dilation))
    made = len(range(phase, outputs, dilation))
    return Axis(inputs, -whole, made, taps, 1, 0, 0), first


def _phases(kernel: DepthwiseConv2D, axis: PairedAxis, most_bytes: int, shift: int) -> list[_Phase]:
    """All of them; empty when one cannot be done."""
    window = kernel.window
    _, tall, wide, channels = window.input_shape
    rows, columns = window.output_size
    down_by, right_by = window.dilation
    top, left = window.padding[:2]
    found = []
    for row, column in product(range(min(down_by, rows)), range(min(right_by, columns))):
        down, first_row = _phase_axis(row, tall, rows, window.size[0], top, down_by)
        right, first_column = _phase_axis(column, wide, columns, window.size[1], left, right_by)
        down = replace(down, input_step=down_by * wide * channels,
                       output_step=down_by * columns * channels)  # fmt: skip
        right = replace(right, input_step=right_by * channels, output_step=right_by * channels)
        plan = plan_axes(kernel, (down, right), axis, most_bytes, shift)
        if plan is None:
            return []
        found.append(
            _Phase(
                DilatedPlan(**vars(plan)),
                (first_row * wide + first_column) * channels,
                (row * columns + column) * channels,
            )
        )
    return sorted(found, key=lambda phase: phase.plan.symbol)


def _implementation(
    kernel: DepthwiseConv2D,
    phases: list[_Phase],
    left: int,
    constants: tuple[np.ndarray, ...],
) -> Implementation:
    parts: dict[str, Implementation] = {}
    for phase in phases:
        if phase.plan.symbol not in parts:
            writer = DepthwiseText(phase.plan)
            part = implementation(phase.plan, writer, kernel, left, constants)
            parts[phase.plan.symbol] = part
    calls = {name: sum(phase.plan.symbol == name for phase in phases) for name in parts}
    symbol = _symbol(kernel, phases)
    own = [(1, [*_START, *_END]), (len(phases), _CALL)]
    own += [(1, load_constant("r9", count)) for count in calls.values()]
    instructions = sum(times * instruction_count(lines) for times, lines in own)
    taken = sum(times * cycles(lines) for times, lines in own)
    for name, part in parts.items():
        instructions += calls[name] * part.cost.instructions
        taken += calls[name] * part.cost.cycles
    first = phases[0].plan
    in_place = kernel.output_shape == kernel.window.input_shape and all(
        phase.input_place == phase.output_place and phase.plan.works_in_place() for phase in phases
    )
    texts = {name: text for part in parts.values() for name, text in part.assembly.items()}
    return Implementation(
        symbol=symbol,
        constants=(_pack(phases, parts),),
        cost=Cost(instructions, taken, 0),
        description=f"dsp depthwise, {len(phases)} phases, strips of {first.strip} outputs along "
        f"the {first.axis}",
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


def _symbol(kernel: DepthwiseConv2D, phases: list[_Phase]) -> str:
    """Everything the driver and its routines depend on."""
    window, plan = kernel.window, phases[0].plan
    rows = {phase.plan.symbol: phase.plan.rows for phase in phases}
    numbers = [*window.input_shape[1:], *window.size, *window.padding, *window.dilation,
               *rows.values(), plan.shift, plan.low & 0xFF, plan.high & 0xFF]  # fmt: skip
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
