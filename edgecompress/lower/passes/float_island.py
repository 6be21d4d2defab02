"""The named fallback: operators no integer kernel takes, re-emitted as they were.

Inside an island values have the source's layout, so int8 values are turned from NHWC on the way in
and back on the way out. TVM legalises all of it; integerize lists every operator that stays.
"""

from __future__ import annotations

from tvm import relax

from edgecompress.lower.node_names import node_name
from edgecompress.lower.passes.graph import Graph
from edgecompress.lower.passes.rebuild import Rebuild

_BORDER = ("quantize", "dequantize")


def island_operators(graph: Graph, value: relax.Expr) -> list[tuple[str, str]]:
    """(operator, node) of the float operators between a value and the int8 values before it."""
    found = [
        (graph.op(member) or "call", describe(graph, member, value))
        for member in _members(graph, value, stop=set())
        if graph.op(member) not in _BORDER and graph.constant(member) is None
        and graph.quantized_constant(member) is None
        and not isinstance(graph.bindings[member], relax.TupleGetItem)
    ]  # fmt: skip
    return found or [(graph.op(value) or "input", describe(graph, value))]


def describe(graph: Graph, value: relax.Expr, end: relax.Expr | None = None) -> str:
    """The source node's name and the value's shape.

    Args:
        end: the value the island ends in, whose name does where the node has none of its own.
    """
    own, last = (node_name(graph.bindings.get(item)) for item in (value, end))
    name = own or last or getattr(value, "name_hint", None) or getattr(value, "name", "value")
    if not isinstance(value.ty, relax.TensorType):
        return name
    return f"{name} {list(graph.shape(value))}"


def emit_island(rebuild: Rebuild, value: relax.Expr) -> relax.Expr:
    """Emits what `value` needs, in program order, and returns it in the source's layout."""
    graph = rebuild.graph
    for member in _members(graph, value, stop=set(rebuild.floats)):
        if member not in rebuild.floats:
            rebuild.floats[member] = rebuild.builder.emit(
                _substitute(rebuild, graph.bindings[member])
            )
    return rebuild.floats[graph.root(value)]


def source_value(rebuild: Rebuild, value: relax.Expr) -> relax.Expr:
    """A value in the source's layout, emitting whatever is missing."""
    value = rebuild.graph.root(value)
    if value in rebuild.floats:
        return rebuild.floats[value]
    if value not in rebuild.placed:
        return emit_island(rebuild, value)
    placed = rebuild.placed[value]
    if rebuild.graph.is_image(value):
        placed = rebuild.builder.emit(relax.op.permute_dims(placed, [0, 3, 1, 2]))
    if rebuild.graph.dtype(value) == "uint8":
        wide = rebuild.builder.emit(relax.op.astype(placed, "int16"))
        wide = rebuild.builder.emit(relax.op.add(wide, relax.const(128, "int16")))
        placed = rebuild.builder.emit(relax.op.astype(wide, "uint8"))
    rebuild.floats[value] = placed
    return placed


def to_device(rebuild: Rebuild, value: relax.Expr, emitted: relax.Expr) -> relax.Expr:
    """An island's 8-bit result, in the source's layout, as the device keeps it."""
    if str(emitted.ty.dtype) == "uint8":
        wide = rebuild.builder.emit(relax.op.astype(emitted, "int16"))
        wide = rebuild.builder.emit(relax.op.subtract(wide, relax.const(128, "int16")))
        emitted = rebuild.builder.emit(relax.op.astype(wide, "int8"))
    if rebuild.graph.is_image(value):
        emitted = rebuild.builder.emit(relax.op.permute_dims(emitted, [0, 2, 3, 1]))
    return emitted


def _members(graph: Graph, value: relax.Expr, stop: set[relax.Expr]) -> list[relax.Var]:
    """Bindings between `value` (included) and the 8-bit values before it, in program order."""
    seen: set[relax.Expr] = set()
    waiting = [graph.root(value)]
    while waiting:
        member = waiting.pop()
        if member in seen or member in stop or member not in graph.bindings:
            continue
        if seen and _is_cut(graph, member):
            continue
        seen.add(member)
        waiting += [graph.root(argument) for argument in graph.arguments(member)]
    return [binding for binding in graph.bindings if binding in seen]


def _is_cut(graph: Graph, value: relax.Expr) -> bool:
    """An 8-bit activation other than the quantize inside its own clip."""
    if not isinstance(value.ty, relax.TensorType) or graph.dtype(value) not in ("int8", "uint8"):
        return False
    if graph.constant(value) is not None:
        return False
    readers = graph.users[value]
    own_clip = graph.op(value) == "quantize" and all(graph.op(r) == "clip" for r in readers)
    return not own_clip


def _substitute(rebuild: Rebuild, expression: relax.Expr) -> relax.Expr:
    if isinstance(expression, relax.Var):
        return source_value(rebuild, expression)
    if isinstance(expression, relax.Tuple):
        return relax.Tuple([_substitute(rebuild, item) for item in expression.fields])
    if isinstance(expression, relax.TupleGetItem):
        return relax.TupleGetItem(_substitute(rebuild, expression.tuple_value), expression.index)
    if isinstance(expression, relax.Call):
        arguments = [_substitute(rebuild, argument) for argument in expression.args]
        return relax.Call(expression.op, arguments, expression.attrs, expression.ty_args)
    return expression
