"""A padding layer becomes the border of the convolutions and maximum poolings that read it.

    pad_0:    pad(x, zero point) -> p        conv2d_0: conv2d(x, padded) -> y
    conv2d_0: conv2d(p) -> y            =>

The padded copy then never exists. Exporters write one wherever a framework's padding is not
TensorFlow's SAME: before every strided convolution of a network that came from PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import tvm

from edgecompress.lower.kernels.conv2d import Conv2D
from edgecompress.lower.kernels.depthwise_conv2d import DepthwiseConv2D
from edgecompress.lower.kernels.max_pool2d import MaxPool2d
from edgecompress.lower.kernels.pad import Pad
from edgecompress.lower.kernels.primfunc import build_function
from edgecompress.lower.memory.lifetimes import with_lifetimes
from edgecompress.lower.memory.overlap import kernel_overlaps
from edgecompress.lower.program import Argument, Kernel, Program, Step

Kinds = tuple[tuple[tuple[int, ...], str], ...]
_LEAST_INT8 = -128  # what a maximum pooling's own border counts as


def fold_pad(program: Program) -> Program:
    """The program without the paddings that all their readers can take over; to be placed anew.

    A reader can when it is a convolution whose input zero point is the fill, or a maximum pooling
    and the fill is -128. Height and width only: a padded channel or batch stays a layer.
    """
    steps: list[Step | None] = list(program.steps)
    folded = _Folded(program)
    for index, step in enumerate(program.steps):
        readers = [
            position
            for position, other in enumerate(steps)
            if other is not None and step.output in _read(other)
        ]
        if step.output in program.output_buffers:
            continue
        taken = [_without(steps[position], step) for position in readers]
        if not taken or any(kernel is None for kernel in taken):
            continue
        for position, kernel in zip(readers, taken, strict=True):
            reader = steps[position]
            assert reader is not None
            assert kernel is not None
            steps[position] = folded.step(reader, step.arguments[0], kernel)
        steps[index] = None
    kept = tuple(step for step in steps if step is not None)
    if len(kept) == len(program.steps):
        return program
    return with_lifetimes(replace(program, steps=kept, functions=folded.functions(kept)))


def _read(step: Step) -> list[str]:
    return [argument.name for argument in step.arguments[:-1] if argument.kind == "buffer"]


def _without(reader: Step | None, step: Step) -> Kernel | None:
    """The reader's kernel on the unpadded tensor; None if there is none."""
    pad, kernel = step.kernel, None if reader is None else reader.kernel
    if not isinstance(pad, Pad) or len(pad.shape) != 4 or step.arguments[0].kind != "buffer":
        return None
    above, left, below, right = pad.before[1], pad.before[2], pad.after[1], pad.after[2]
    if any(pad.before[axis] or pad.after[axis] for axis in (0, 3)):
        return None
    if isinstance(kernel, Conv2D | DepthwiseConv2D):
        fill = kernel.input_zero_point
    elif isinstance(kernel, MaxPool2d):
        fill = _LEAST_INT8
    else:
        return None
    window = kernel.window
    padded = tuple(
        size + b + a for size, b, a in zip(pad.shape, pad.before, pad.after, strict=True)
    )
    if pad.fill != fill or window.input_shape != padded:
        return None
    top, before, bottom, after = window.padding
    border = (top + above, before + left, bottom + below, after + right)
    return replace(kernel, window=replace(window, input_shape=pad.shape, padding=border))


@dataclass
class _Folded:
    """The functions of kernels that were rewritten: equal ones share one."""

    program: Program

    def __post_init__(self) -> None:
        self._symbols: dict[tuple[Kernel, Kinds], str] = {}
        self._made: dict[str, tvm.tirx.PrimFunc] = {}

    def step(self, reader: Step, source: Argument, kernel: Kernel) -> Step:
        """`reader` with another kernel on another tensor."""
        arguments = (source, *reader.arguments[1:])
        kinds: Kinds = tuple(self._kind(kernel, argument) for argument in arguments[:-1])
        known = f"model_{kernel.op}_padded_{len(self._symbols)}"
        symbol = self._symbols.setdefault((kernel, kinds), known)
        if symbol not in self._made:
            self._made[symbol] = build_function(kernel, kinds, symbol)
        return replace(
            reader, function=symbol, arguments=arguments, kernel=kernel,
            overlaps=kernel_overlaps(kernel),
        )  # fmt: skip

    def functions(self, steps: tuple[Step, ...]) -> tvm.IRModule:
        called = {step.function for step in steps}
        module = {
            variable.name_hint: function
            for variable, function in self.program.functions.functions.items()
            if variable.name_hint in called
        }
        module.update({name: made for name, made in self._made.items() if name in called})
        return tvm.IRModule(module)

    def _kind(self, kernel: Kernel, argument: Argument) -> tuple[tuple[int, ...], str]:
        if argument.kind == "constant":
            array = self.program.constants[int(argument.name)]
            return array.shape, str(array.dtype)
        return kernel.window.input_shape, "int8"  # type: ignore[attr-defined]
