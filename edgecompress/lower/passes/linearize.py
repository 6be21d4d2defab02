"""Reads the lowered Relax function off into a Program: steps, buffers, constants."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import tvm
from tvm import relax, tirx

from edgecompress.errors import BuildFailed
from edgecompress.lower.kernels.primfunc import build_function
from edgecompress.lower.memory.overlap import kernel_overlaps
from edgecompress.lower.program import Argument, Buffer, Kernel, Program, Step
from edgecompress.records import TensorSpec

_ALLOCATE = ("relax.memory.alloc_tensor", "relax.builtin.alloc_tensor")
_ALIAS = ("relax.reshape",)


@dataclass
class _Reading:
    """What has been read so far. Buffers are named after the step that writes them."""

    kernels: dict[str, Kernel]
    values: dict[relax.Expr, Argument] = field(default_factory=dict)
    unwritten: dict[relax.Expr, relax.TensorType] = field(default_factory=dict)
    shapes: dict[str, tuple[tuple[int, ...], str]] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    constants: list[np.ndarray] = field(default_factory=list)
    constant_index: dict[tuple, int] = field(default_factory=dict)
    ordinals: Counter = field(default_factory=Counter)

    def argument(self, expression: relax.Expr) -> Argument:
        if isinstance(expression, relax.Var):
            return self.values[expression]
        return self.constant(expression.value.numpy())

    def constant(self, array: np.ndarray) -> Argument:
        array = np.ascontiguousarray(array)
        key = (str(array.dtype), array.tobytes())
        index = self.constant_index.setdefault(key, len(self.constants))
        if index == len(self.constants):
            self.constants.append(array)
        return Argument("constant", str(index))

    def buffer(self, name: str, ty: relax.TensorType, step: int) -> Argument:
        shape = tuple(int(size) for size in ty.shape.values)
        self.shapes[name] = (shape, str(ty.dtype))
        self.first[name] = self.last[name] = step
        return Argument("buffer", name)


def linearize(
    module: tvm.IRModule,
    kernels: dict[str, Kernel],
    *,
    name: str,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    requantize: Literal["smmla", "tflite"],
) -> Program:
    """The Program of a module after CallTIRRewrite. Step i writes the buffer that has its name.

    Raises:
        BuildFailed: an output is an input, or a call is no PrimFunc.
    """
    function = module["main"]
    reading = _Reading(kernels)
    for parameter, spec in zip(function.params, inputs, strict=True):
        reading.values[parameter] = reading.buffer(spec.name, parameter.ty, -1)
    for block in function.body.blocks:
        for binding in block.bindings:
            _read(reading, binding.var, binding.value)
    input_buffers = tuple(reading.values[parameter].name for parameter in function.params)
    results = _results(reading, function.body.body)
    for result in results:
        if result.kind != "buffer" or result.name in input_buffers:
            raise BuildFailed("A model output is a constant or a model input: nothing to run.")
        reading.last[result.name] = len(reading.steps)
    output_buffers = tuple(result.name for result in results)
    called = {step.function for step in reading.steps}
    functions = {}
    for global_var, tir in module.functions.items():
        symbol = _symbol(global_var.name_hint, kernels)
        if isinstance(tir, tirx.PrimFunc) and symbol in called:
            if getattr(kernels.get(symbol), "scratch", ()):
                tir = build_function(kernels[symbol], [], symbol)
            functions[symbol] = tir.with_attr("global_symbol", symbol)
    return Program(
        name=name,
        steps=tuple(reading.steps),
        buffers=_buffers(reading),
        constants=tuple(reading.constants),
        functions=tvm.IRModule(functions),
        inputs=inputs,
        outputs=outputs,
        input_buffers=input_buffers,
        output_buffers=output_buffers,
        requantize=requantize,
        float_layers=tuple(step.name for step in reading.steps if step.is_float),
    )


def _symbol(function: str, kernels: dict[str, Kernel]) -> str:
    """The C symbol: integer kernels bring theirs, TVM's float functions get a prefix."""
    return function if function in kernels else f"model_float_{function}"


def _read(reading: _Reading, variable: relax.Var, value: relax.Expr) -> None:
    """One binding: an allocation, an alias, a kernel call, or another name."""
    if isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.Op):
        if value.op.name in _ALLOCATE:
            reading.unwritten[variable] = variable.ty
        elif value.op.name in _ALIAS:
            reading.values[variable] = reading.argument(value.args[0])
        else:
            raise BuildFailed(f"Relax left the operator {value.op.name} without a kernel.")
    elif isinstance(value, relax.Call):
        _read_call(reading, value)
    elif isinstance(value, relax.Var):
        if value in reading.unwritten:
            reading.unwritten[variable] = reading.unwritten[value]
        else:
            reading.values[variable] = reading.values[value]
    elif not isinstance(value, relax.Tuple):
        reading.values[variable] = reading.argument(value)


def _read_call(reading: _Reading, call: relax.Call) -> None:
    function = call.op.name_hint
    kernel = reading.kernels.get(function)
    op = kernel.op if kernel is not None else "float_" + function.rstrip("0123456789")
    name, index = f"{op}_{reading.ordinals[op]}", len(reading.steps)
    reading.ordinals[op] += 1
    *sources, target = call.args
    arguments = [reading.argument(source) for source in sources]
    for ordinal, scratch in enumerate(getattr(kernel, "scratch", ())):
        kind = relax.TensorType(list(scratch.shape), scratch.dtype)
        own = reading.buffer(f"{name}.scratch_{ordinal}", kind, index)
        arguments.append(Argument("scratch", own.name))
    for argument in arguments:
        if argument.kind == "buffer":
            reading.last[argument.name] = index
    reading.values[target] = reading.buffer(name, reading.unwritten.pop(target), index)
    arguments.append(reading.values[target])
    macs = kernel.macs if kernel is not None else 0
    symbol = _symbol(function, reading.kernels)
    overlaps = kernel_overlaps(kernel)
    reading.steps.append(Step(name, symbol, tuple(arguments), kernel, op, macs, overlaps))


def _results(reading: _Reading, result: relax.Expr) -> list[Argument]:
    if isinstance(result, relax.Tuple):
        return [reading.argument(item) for item in result.fields]
    return [reading.argument(result)]


def _buffers(reading: _Reading) -> dict[str, Buffer]:
    buffers = {}
    for name, (shape, dtype) in reading.shapes.items():
        size_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        buffers[name] = Buffer(
            name, shape, dtype, size_bytes, reading.first[name], reading.last[name]
        )
    return buffers
