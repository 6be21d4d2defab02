"""Some consecutive steps made in horizontal stripes, so that their maps never exist as wholes.

    conv2d_0, conv2d_1          =>    conv2d_0.patch0, conv2d_1.patch0, conv2d_0.patch1, ...

Each stripe of the stage's last map is computed from the model's (or the earlier layers') map by the
layers' own kernels, given fewer rows (`patch.stripe`). Between stripes nothing is kept, so rows
that two stripes need are computed twice: that is the price. Rows of an NHWC map lie one after the
other, so a stripe of what enters and of what leaves is a view and nothing is copied.

(Lin et al., "MCUNetV2: Memory-Efficient Patch-based Inference", 2021, divide both axes. Stripes
recompute less for the same memory as long as a row of the widest map is small against it.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import tvm

from edgecompress.lower.kernels.primfunc import build_function
from edgecompress.lower.memory.arena import place
from edgecompress.lower.memory.lifetimes import with_lifetimes
from edgecompress.lower.memory.overlap import kernel_overlaps
from edgecompress.lower.passes.patch.stripe import CannotStripe, Rows, Stripe, stripe
from edgecompress.lower.program import Argument, Buffer, Program, Step

VIEW_ALIGNMENT = 4
"""Bytes. Kernels for a device load words from where their tensors begin."""


@dataclass(frozen=True)
class Stage:
    """Steps `first` up to, not including, `end`, in `stripes` stripes."""

    first: int
    end: int
    stripes: int


def patched(program: Program, stage: Stage) -> Program:
    """The program with one stage in stripes: the same numbers, placed.

    Raises:
        CannotStripe: the stage holds a step that has no stripes, a map inside it is read behind
            it, or there are fewer rows than stripes.
    """
    return place(with_functions(divided(program, stage)))


def divided(program: Program, stage: Stage) -> Program:
    """`patched` without functions and offsets: what its memory and its work can be read off.

    Steps of new kernels have the function "".

    Raises:
        CannotStripe: see `patched`.
    """
    check_stage(program, stage)
    building = _Building(program, stage)
    for index, rows in enumerate(_split(program, stage)):
        building.add_stripe(index, rows)
    steps = (
        *program.steps[: stage.first],
        *building.steps,
        *program.steps[stage.end :],
    )
    buffers = {**program.buffers, **building.buffers}
    return with_lifetimes(replace(program, steps=steps, buffers=buffers))


def check_stage(program: Program, stage: Stage) -> None:
    """Raises CannotStripe, with the reason, where these steps cannot be made in stripes."""
    steps = program.steps[stage.first : stage.end]
    for step in steps:
        if step.kernel is None:
            raise CannotStripe(f"{step.name} is a float operator")
        if not step.function:
            raise CannotStripe(f"{step.name} is a stripe already")
        parameters = program.functions[step.function].params
        for argument, parameter in zip(step.arguments, parameters, strict=True):
            if argument.kind == "constant":
                continue
            buffer = program.buffers[argument.name]
            declared = tuple(int(size) for size in parameter.ty.shape)
            if buffer.view_of or buffer.shape != declared or len(declared) != 4:
                raise CannotStripe(f"{step.name} takes {buffer.name} in another shape")
    for step in steps[:-1]:
        if program.buffers[step.output].last_step >= stage.end:
            raise CannotStripe(f"{step.output} is read behind the stage")


def with_functions(program: Program) -> Program:
    """The program with a function for each distinct kernel that has none yet; equal ones share."""
    functions = {
        variable.name_hint: function for variable, function in program.functions.functions.items()
    }
    symbols: dict[tuple, str] = {}
    steps = []
    for step in program.steps:
        if not step.function:
            assert step.kernel is not None
            kinds = tuple(_kind(program, argument) for argument in step.arguments[:-1])
            key = (step.kernel, kinds)
            if key not in symbols:
                symbols[key] = name = f"model_{step.op}_stripe_{len(functions)}"
                functions[name] = build_function(step.kernel, kinds, name)
            step = replace(step, function=symbols[key])
        steps.append(step)
    called = {step.function for step in steps}
    kept = {name: function for name, function in functions.items() if name in called}
    return replace(program, steps=tuple(steps), functions=tvm.IRModule(kept))


def _kind(program: Program, argument: Argument) -> tuple[tuple[int, ...], str]:
    if argument.kind == "constant":
        array = program.constants[int(argument.name)]
        return array.shape, str(array.dtype)
    buffer = program.buffers[argument.name]
    return buffer.shape, buffer.dtype


def _split(program: Program, stage: Stage) -> list[Rows]:
    """The rows of the stage's last map that each stripe makes: equal, but for the last's.

    Equal stripes without a border share their kernels.
    """
    height = program.buffers[program.steps[stage.end - 1].output].shape[1]
    if stage.stripes not in stripe_counts(height):
        raise CannotStripe(f"{height} rows do not make {stage.stripes} stripes")
    each = -(-height // stage.stripes)
    return [Rows(first, min(first + each, height)) for first in range(0, height, each)]


def stripe_counts(height: int) -> list[int]:
    """How many equal stripes so many rows make, the last with what is left: rising, from 1."""
    return sorted({-(-height // each) for each in range(1, height + 1)})


@dataclass
class _Building:
    """Steps and buffers of the stage while its stripes are added."""

    program: Program
    stage: Stage
    steps: list[Step] = field(default_factory=list)
    buffers: dict[str, Buffer] = field(default_factory=dict)

    def add_stripe(self, index: int, rows: Rows) -> None:
        """The steps that make some rows of the stage's last map."""
        steps = self.program.steps[self.stage.first : self.stage.end]
        made = {steps[-1].output: rows}
        stripes: list[Stripe] = []
        for step in reversed(steps):
            found = stripe(step.kernel, made[step.output])
            for argument, read in zip(_activations(step), found.inputs, strict=False):
                made[argument.name] = read.hull(made.get(argument.name, read))
            stripes.append(found)
        for step, found in zip(steps, reversed(stripes), strict=True):
            self._add(step, found, index, made)

    def _add(self, step: Step, found: Stripe, index: int, made: dict[str, Rows]) -> None:
        reads = iter(found.inputs)
        arguments = [
            argument
            if argument.kind == "constant"
            else Argument("buffer", self._input(argument.name, next(reads), index, made))
            for argument in step.arguments[:-1]
        ]
        output = self._output(step, index, made[step.output])
        kernel = found.kernel
        self.steps.append(
            Step(
                name=f"{step.name}.patch{index}",
                function="",
                arguments=(*arguments, Argument("buffer", output)),
                kernel=kernel,
                op=step.op,
                macs=kernel.macs,
                overlaps=kernel_overlaps(kernel),
            )
        )

    def _output(self, step: Step, index: int, rows: Rows) -> str:
        """A buffer of its own for a map inside the stage, a view for the one that leaves it."""
        name = f"{step.output}.patch{index}"
        whole = self.program.buffers[step.output]
        if step is self.program.steps[self.stage.end - 1]:
            self.buffers[name] = _view(whole, name, rows, first=0)
        else:
            shape = (1, rows.count, *whole.shape[2:])
            size = whole.size_bytes // whole.shape[1] * rows.count
            self.buffers[name] = Buffer(name, shape, whole.dtype, size, 0, 0)
        return name

    def _input(self, source: str, rows: Rows, index: int, made: dict[str, Rows]) -> str:
        """The buffer of some rows: one that holds no others, else a view."""
        inside = f"{source}.patch{index}"
        whole = self.buffers.get(inside, self.program.buffers[source])
        first = made[source].first if inside in self.buffers else 0
        if rows == Rows(first, first + whole.shape[1]):
            return whole.name
        name = f"{whole.name}.rows{rows.first}to{rows.end}"
        self.buffers[name] = _view(whole, name, rows, first=first)
        return name


def _activations(step: Step) -> Sequence[Argument]:
    return [argument for argument in step.arguments[:-1] if argument.kind == "buffer"]


def _view(whole: Buffer, name: str, rows: Rows, *, first: int) -> Buffer:
    """Some rows of a buffer whose own rows begin at `first`."""
    row_bytes = int(np.prod(whole.shape[2:])) * np.dtype(whole.dtype).itemsize
    offset = (rows.first - first) * row_bytes
    if offset % VIEW_ALIGNMENT:
        raise CannotStripe(f"row {rows.first} of {whole.name} begins inside a word")
    return Buffer(
        name=name,
        shape=(1, rows.count, *whole.shape[2:]),
        dtype=whole.dtype,
        size_bytes=rows.count * row_bytes,
        first_step=0,
        last_step=0,
        view_of=whole.name,
        view_offset_bytes=offset,
    )
