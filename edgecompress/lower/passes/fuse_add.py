"""A convolution followed by a residual addition becomes one step.

    conv2d_5: conv2d(x) -> c         conv2d_5_add_1: conv2d_add(x, r) -> y
    add_1:    add(r, c) -> y    =>

The convolution's own output then never exists, and `y` can take the place of `r`: a residual block
needs two maps of its size instead of three.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import tvm

from edgecompress.lower.kernels.add import Add
from edgecompress.lower.kernels.conv2d import Conv2D
from edgecompress.lower.kernels.conv2d_add import Conv2DAdd
from edgecompress.lower.kernels.primfunc import build_function
from edgecompress.lower.memory.lifetimes import with_lifetimes
from edgecompress.lower.program import Argument, Program, Step


def fuse_add(program: Program) -> Program:
    """The program with every such pair fused; offsets are to be placed anew.

    A pair is fused when the convolution has one group, nobody else reads its output and the other
    operand is ready before it runs. The fused step stands where the convolution stood.
    """
    reads = Counter(
        argument.name
        for step in program.steps
        for argument in step.arguments[:-1]
        if argument.kind == "buffer"
    )
    reads.update(program.output_buffers)
    steps: list[Step | None] = list(program.steps)
    functions: dict[tuple, str] = {}
    added: dict[str, tvm.tirx.PrimFunc] = {}
    for index, step in enumerate(program.steps):
        found = _convolution(program, index, reads)
        if found is None:
            continue
        position, operand = found
        fused, kinds = _fused(program, program.steps[position], step, operand)
        key = (fused.kernel, kinds)
        symbol = functions.setdefault(key, f"model_conv2d_add_{len(functions)}")
        if symbol not in added:
            added[symbol] = build_function(fused.kernel, kinds, symbol)
        steps[position], steps[index] = replace(fused, function=symbol), None
    if not added:
        return program
    kept = tuple(step for step in steps if step is not None)
    called = {step.function for step in kept}
    module = {
        variable.name_hint: function
        for variable, function in program.functions.functions.items()
        if variable.name_hint in called
    }
    module.update(added)
    return with_lifetimes(replace(program, steps=kept, functions=tvm.IRModule(module)))


def _convolution(program: Program, index: int, reads: Counter) -> tuple[int, int] | None:
    """(step of the convolution, which operand it is) that the addition at `index` can take in."""
    kernel, arguments = program.steps[index].kernel, program.steps[index].arguments
    if not isinstance(kernel, Add) or kernel.shape != kernel.other_shape or len(arguments) != 3:
        return None
    if any(argument.kind != "buffer" for argument in arguments):
        return None
    written = [program.buffers[argument.name].first_step for argument in arguments[:2]]
    if written[0] == written[1]:
        return None
    operand = 0 if written[0] > written[1] else 1
    producer = written[operand]
    convolution = program.steps[producer].kernel
    # no instruction set has a kernel for the sum with a grouped one: apart they take a quarter
    if not isinstance(convolution, Conv2D) or convolution.groups > 1:
        return None
    return (producer, operand) if reads[arguments[operand].name] == 1 else None


def _fused(
    program: Program, conv: Step, add: Step, operand: int
) -> tuple[Step, tuple[tuple[tuple[int, ...], str], ...]]:
    """The fused step, its function still unnamed, and (shape, dtype) of its arguments."""
    assert isinstance(conv.kernel, Conv2D)
    assert isinstance(add.kernel, Add)
    shape = conv.kernel.output_shape
    # a reshape between the two is only another name for the same bytes
    sum_of = replace(add.kernel, shape=shape, other_shape=shape)
    kernel = Conv2DAdd(conv.kernel, sum_of, operand)
    x, *constants = conv.arguments[:-1]
    other = add.arguments[1 - operand]
    step = Step(
        name=f"{conv.name}_{add.name}",
        function="",
        arguments=(x, other, *constants, add.arguments[-1]),
        kernel=kernel,
        op=kernel.op,
        macs=kernel.macs,
        overlaps=kernel.overlaps,
    )
    kinds = [(conv.kernel.window.input_shape, "int8"), (shape, "int8")]
    kinds += [_kind(program, argument) for argument in constants]
    return step, tuple(kinds)


def _kind(program: Program, argument: Argument) -> tuple[tuple[int, ...], str]:
    array = program.constants[int(argument.name)]
    return array.shape, str(array.dtype)
