"""One spelling for what the importers and exporters write in several ways.

After this pass
    squeeze, expand_dims and flatten are `reshape`
    a reshape of dequantize(x) is dequantize(reshape(x)): reshapes move bytes, never reals; but for
    those that split attention heads
    quantize(dequantize(x)) with equal parameters is x
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import tvm
from tvm import relax

from edgecompress.lower.passes.graph import Graph

_RESHAPES = ("relax.reshape", "relax.squeeze", "relax.expand_dims", "relax.flatten")


def canonicalize(function: relax.Function, layout: Literal["NCHW", "NHWC"]) -> relax.Function:
    """The same function in the module's form. Bindings keep their order."""
    # the second walk sees the quantize(dequantize(x)) that moving reshapes uncovers
    return _walk(_walk(function, layout), layout)


def _walk(function: relax.Function, layout: Literal["NCHW", "NHWC"]) -> relax.Function:
    graph = Graph(function, layout=layout)
    builder = relax.BlockBuilder()
    renamed: dict[relax.Var, relax.Expr] = {}
    parameters = [relax.Var(_name(p), p.ty) for p in function.params]
    renamed.update(zip(function.params, parameters, strict=True))
    with builder.function("main", parameters):
        with builder.dataflow():
            for variable, bound in graph.bindings.items():
                renamed[variable] = _rewrite(builder, graph, variable, bound, renamed)
            results = [renamed[graph.root(output)] for output in graph.outputs]
            result = results[0] if len(results) == 1 else relax.Tuple(results)
            result = builder.emit_output(result)
        builder.emit_func_output(result)
    rebuilt = builder.get()["main"]
    count = len(graph.inputs)
    return rebuilt.with_attr("num_input", count)


def _rewrite(
    builder: relax.BlockBuilder,
    graph: Graph,
    variable: relax.Var,
    bound: relax.Expr,
    renamed: dict[relax.Var, relax.Expr],
) -> relax.Expr:
    if isinstance(bound, relax.Var):
        return renamed[bound]
    if not isinstance(bound, relax.Call) or not isinstance(bound.op, tvm.ir.Op):
        return builder.emit(_substitute(bound, renamed))
    if bound.op.name in _RESHAPES:
        return _reshape(builder, graph, variable, bound, renamed)
    if bound.op.name == "relax.quantize" and (same := _undone(graph, variable)) is not None:
        return renamed[same]
    return builder.emit(_substitute(bound, renamed))


def _reshape(
    builder: relax.BlockBuilder,
    graph: Graph,
    variable: relax.Var,
    bound: relax.Call,
    renamed: dict[relax.Var, relax.Expr],
) -> relax.Expr:
    shape = relax.ShapeExpr(list(graph.shape(variable)))
    before = graph.call(bound.args[0], "reshape")
    if before is not None:
        return builder.emit(relax.op.reshape(_substitute(before.args[0], renamed), shape))
    inner = graph.call(bound.args[0], "dequantize")
    movable = inner is not None and not _splits_heads(graph, variable)
    if movable and graph.activation(bound.args[0]) is not None:
        moved = builder.emit(relax.op.reshape(renamed[graph.root(inner.args[0])], shape))
        arguments = [_substitute(argument, renamed) for argument in inner.args[1:]]
        return builder.emit(relax.Call(inner.op, [moved, *arguments], inner.attrs))
    return builder.emit(relax.op.reshape(_substitute(bound.args[0], renamed), shape))


def _splits_heads(graph: Graph, variable: relax.Var) -> bool:
    """Whether a reshape to four dimensions only serves a product over heads (kernels/attention.py).

    What it makes is not an image: it stays a real-valued view inside that product.
    """
    readers = {graph.op(user) for user in graph.users[variable]}
    return (
        len(graph.shape(variable)) == 4 and bool(readers) and readers <= {"permute_dims", "matmul"}
    )


def _undone(graph: Graph, variable: relax.Var) -> relax.Var | None:
    """x of quantize(reshapes of dequantize(x)) without the reshapes; None when it does work."""
    quantize = graph.call(variable, "quantize")
    if quantize is None:
        return None
    source, output = graph.activation(quantize.args[0]), graph.output(variable)
    if source is None or output is None or graph.root(quantize.args[0]) != output.source:
        return None
    same = np.float32(source.scale) == np.float32(output.scale)
    if same and source.zero_point == output.zero_point:
        equal_type = graph.dtype(source.value) == graph.dtype(variable)
        return source.value if equal_type else None
    return None


def _substitute(expression: relax.Expr, renamed: dict[relax.Var, relax.Expr]) -> relax.Expr:
    """The expression with its variables replaced by their new ones."""
    if isinstance(expression, relax.Var):
        return renamed[expression]
    if isinstance(expression, relax.Tuple):
        return relax.Tuple([_substitute(field, renamed) for field in expression.fields])
    if isinstance(expression, relax.TupleGetItem):
        return relax.TupleGetItem(_substitute(expression.tuple_value, renamed), expression.index)
    if isinstance(expression, relax.Call):
        arguments = [_substitute(argument, renamed) for argument in expression.args]
        return relax.Call(
            expression.op, arguments, expression.attrs, expression.ty_args, span=expression.span
        )
    return expression


def _name(variable: relax.Var) -> str:
    return variable.name_hint if hasattr(variable, "name_hint") else variable.name
