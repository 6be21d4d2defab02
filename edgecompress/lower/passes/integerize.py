"""Quantized float islands become integer kernels: the function is rebuilt from its int8 values.

Every int8 value is a *cut point*. In program order each one is asked of the matchers; the first
that recognises the float tree between it and the int8 values before it gives an integer kernel, and
the tree is simply never emitted. What nothing matches stays float, if that is allowed, as TVM's own
operators on dequantized values; otherwise all of it is reported at once.

The rebuilt function has int8 inputs and outputs (the quantize and dequantize at the borders are
left off, their parameters kept in the TensorSpecs) and holds 4-D values in NHWC.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import tvm
from tvm import relax

from edgecompress.errors import UnsupportedOperators
from edgecompress.lower.importers import Border, Imported
from edgecompress.lower.kernels import MATCHERS
from edgecompress.lower.kernels.interface import CannotMatch
from edgecompress.lower.kernels.transpose import Transpose
from edgecompress.lower.passes.canonicalize import canonicalize
from edgecompress.lower.passes.float_island import (
    emit_island,
    island_operators,
    source_value,
    to_device,
)
from edgecompress.lower.passes.graph import Graph
from edgecompress.lower.passes.rebuild import Rebuild
from edgecompress.lower.program import Kernel
from edgecompress.records import TensorSpec

_TO_SOURCE, _TO_DEVICE = (0, 3, 1, 2), (0, 2, 3, 1)


@dataclass(frozen=True)
class Integerized:
    """The rebuilt module and what its names mean."""

    module: tvm.IRModule
    kernels: dict[str, Kernel]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def integerize(
    imported: Imported,
    *,
    requantize: Literal["smmla", "tflite"] = "smmla",
    allow_float: bool = False,
) -> Integerized:
    """Rewrites an imported quantized model; see the module.

    Raises:
        UnsupportedOperators: some operators have no integer kernel and `allow_float` is False.
        BuildFailed: a layer's numbers do not fit 32-bit integer arithmetic.
    """
    function = canonicalize(imported.module["main"], imported.layout)
    graph = Graph(function, layout=imported.layout, requantize=requantize)
    rebuild = Rebuild(graph, imported, relax.BlockBuilder())
    parameters, inputs = _parameters(rebuild)
    outputs, output_values = _outputs(graph, imported)
    cuts = _cut_points(graph, output_values)
    refused: list[tuple[str, str, str]] = []
    with rebuild.builder.function("main", parameters):
        with rebuild.builder.dataflow():
            for value in cuts:
                if value not in rebuild.placed:
                    _place(rebuild, value, refused, allow_float)
            results = [_result(rebuild, value, refused, allow_float) for value in output_values]
            result = results[0] if len(results) == 1 else relax.Tuple(results)
            result = rebuild.builder.emit_output(result)
        rebuild.builder.emit_func_output(result)
    if refused and not allow_float:
        raise UnsupportedOperators(
            refused, next_step="Use --allow-float to keep them in float, or change these operators."
        )
    module = rebuild.builder.get()
    return Integerized(module, rebuild.kernels, inputs, outputs)


def keep_float(imported: Imported) -> Integerized:
    """The module as it is, every operator in float and in the source's own layout."""
    graph = Graph(imported.module["main"], layout=imported.layout)

    def specification(value: relax.Expr, border: Border) -> TensorSpec:
        return TensorSpec(name=border.name, shape=graph.shape(value), dtype=graph.dtype(value))

    inputs = zip(graph.inputs, imported.inputs, strict=True)
    outputs = zip(graph.outputs, imported.outputs, strict=True)
    return Integerized(
        imported.module,
        {},
        tuple(specification(value, border) for value, border in inputs),
        tuple(specification(value, border) for value, border in outputs),
    )


def _place(
    rebuild: Rebuild, value: relax.Var, refused: list[tuple[str, str, str]], allow_float: bool
) -> None:
    """Gives a cut point its device value: an alias, a kernel, or (allowed) a float island."""
    graph = rebuild.graph
    if graph.op(value) == "reshape":
        rebuild.placed[value] = _reshape(rebuild, value)
        return
    try:
        match = next((found for try_match in MATCHERS if (found := try_match(graph, value))), None)
        reason = "no integer kernel recognises it"
    except CannotMatch as error:
        match, reason = None, str(error)
    if match is not None:
        rebuild.placed[value] = rebuild.call(match, value)
        return
    refused.extend((op, node, reason) for op, node in island_operators(graph, value))
    emitted = (
        emit_island(rebuild, value)
        if allow_float
        else rebuild.builder.emit(relax.op.zeros(graph.shape(value), "int8"))
    )
    rebuild.placed[value] = to_device(rebuild, value, emitted)


def _result(
    rebuild: Rebuild, value: relax.Expr, refused: list[tuple[str, str, str]], allow_float: bool
) -> relax.Expr:
    """The new value of a model output; one that was never quantized is a float island."""
    value = rebuild.graph.root(value)
    if value in rebuild.placed:
        return rebuild.placed[value]
    reason = "the output is not quantized behind it"
    refused.extend((op, node, reason) for op, node in island_operators(rebuild.graph, value))
    if allow_float or value in rebuild.floats:
        return source_value(rebuild, value)
    return rebuild.builder.emit(relax.op.zeros(rebuild.graph.shape(value), "float32"))


def _reshape(rebuild: Rebuild, value: relax.Var) -> relax.Expr:
    """An alias where device memory already has the right order, else a transpose first."""
    graph = rebuild.graph
    source = graph.root(graph.call(value, "reshape").args[0])
    moved = rebuild.placed[source]
    same = (graph.storage(source) == graph.storage(value)).all()
    if not same and graph.storage_order(value) is None:
        if graph.is_image(source):
            moved = _transpose(rebuild, moved, graph.device_shape(source), _TO_SOURCE)
        if graph.is_image(value):
            plain = relax.op.reshape(moved, relax.ShapeExpr(list(graph.shape(value))))
            plain = rebuild.builder.emit(plain)
            return _transpose(rebuild, plain, graph.shape(value), _TO_DEVICE)
    shape = relax.ShapeExpr(list(graph.device_shape(value)))
    return rebuild.builder.emit(relax.op.reshape(moved, shape))


def _transpose(
    rebuild: Rebuild, value: relax.Expr, shape: tuple[int, ...], axes: tuple[int, ...]
) -> relax.Expr:
    turned = tuple(shape[axis] for axis in axes)
    return rebuild.emit(Transpose(shape, axes), [value], (), turned)


def _parameters(rebuild: Rebuild) -> tuple[list[relax.Var], tuple[TensorSpec, ...]]:
    """Device parameters: int8 where every use of a model input is the same quantize."""
    graph, parameters, specs = rebuild.graph, [], []
    for source, border in zip(graph.inputs, rebuild.imported.inputs, strict=True):
        quantized = _input_quantization(graph, source, border)
        if quantized is None:
            shape, dtype = graph.shape(source), graph.dtype(source)
            parameter = relax.Var(border.name, relax.TensorType(list(shape), dtype))
            rebuild.floats[source] = parameter
            specs.append(TensorSpec(name=border.name, shape=shape, dtype=dtype))
        else:
            values, scale, zero_point = quantized
            shape = graph.device_shape(source)
            parameter = relax.Var(border.name, relax.TensorType(list(shape), "int8"))
            rebuild.placed.update(dict.fromkeys(values, parameter))
            layout = "NCHW" if graph.is_image(source) else ""
            specs.append(
                TensorSpec(
                    name=border.name, shape=shape, dtype="int8", scale=scale,
                    zero_point=zero_point, source_layout=layout,
                )
            )  # fmt: skip
        parameters.append(parameter)
    return parameters, tuple(specs)


def _input_quantization(
    graph: Graph, source: relax.Var, border: Border
) -> tuple[list[relax.Var], float, int] | None:
    """(int8 values that are this input, scale, zero point); None when it is used as float."""
    if graph.dtype(source) in ("int8", "uint8"):
        scale, zero_point = border.scale, border.zero_point
        for reader in graph.users[source]:
            if (activation := graph.activation(reader)) is not None:
                scale, zero_point = activation.scale, activation.zero_point
        return None if scale is None else ([source], scale, zero_point)
    outputs = [(reader, graph.output(reader)) for reader in graph.users[source]]
    found = {
        (output.scale, output.zero_point)
        for _, output in outputs
        if output is not None and output.source == source
    }
    if len(found) != 1 or any(o is None or o.source != source for _, o in outputs):
        return None
    if any((output.low, output.high) != (-128, 127) for _, output in outputs):
        return None
    return [reader for reader, _ in outputs], *found.pop()


def _outputs(graph: Graph, imported: Imported) -> tuple[tuple[TensorSpec, ...], list[relax.Expr]]:
    """The TensorSpecs of the results and the values behind them, dequantizes left off."""
    specs, values = [], []
    for result, border in zip(graph.outputs, imported.outputs, strict=True):
        value, scale, zero_point = result, border.scale, border.zero_point
        activation, produced = graph.activation(result), None
        if activation is not None:
            value, scale, zero_point = activation.value, activation.scale, activation.zero_point
        elif graph.dtype(result) in ("int8", "uint8"):
            produced = graph.output(result)
        if produced is not None:
            scale, zero_point = produced.scale, produced.zero_point
        quantized = graph.dtype(value) in ("int8", "uint8")
        shape = graph.device_shape(value) if quantized else graph.shape(value)
        specs.append(
            TensorSpec(
                name=border.name,
                shape=shape,
                dtype="int8" if quantized else graph.dtype(value),
                scale=scale if quantized else None,
                zero_point=zero_point if quantized else 0,
                source_layout="NCHW" if quantized and graph.is_image(value) else "",
            )
        )
        values.append(value)
    return tuple(specs), values


def _cut_points(graph: Graph, outputs: list[relax.Expr]) -> list[relax.Var]:
    """int8 values the outputs need, in program order.

    A quantize that only feeds its own int8 clip is part of that clip.
    """
    seen: set[relax.Var] = set()
    waiting = [graph.root(output) for output in outputs]
    while waiting:
        value = waiting.pop()
        if value in seen or value not in graph.bindings:
            continue
        seen.add(value)
        clip = graph.call(value, "clip")
        inside = (
            clip.args[0] if clip is not None and graph.op(clip.args[0]) == "quantize" else value
        )
        waiting += [graph.root(argument) for argument in graph.arguments(inside)]
    return [
        value
        for value in graph.bindings
        if value in seen
        and isinstance(value.ty, relax.TensorType)
        and graph.dtype(value) in ("int8", "uint8")
        and graph.constant(value) is None
        and graph.root(value) == value
    ]
