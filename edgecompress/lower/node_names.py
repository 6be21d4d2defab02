"""The source's own node names, carried through Relax as spans so that refusals can name them.

TVM's importers drop them. A span survives normalization and emission; what rewrites a call hands it
on. An intermediate value of a node that became several calls has none: the last has the name.
"""

from __future__ import annotations

from tvm import ir, relax


def named(expression: relax.Expr, name: str) -> relax.Expr:
    """The same call under a node's name; other expressions and empty names as they are.

    Its type is for the caller's builder to find again (`normalize`).
    """
    if not name or not isinstance(expression, relax.Call) or expression.span is not None:
        return expression
    span = ir.Span(ir.SourceName(name), 0, 0, 0, 0)
    return relax.Call(
        expression.op, expression.args, expression.attrs, expression.ty_args, span=span
    )


def node_name(expression: relax.Expr | None) -> str:
    """The name a call was given; "" where it has none."""
    span = getattr(expression, "span", None)
    return str(span.source_name.name) if span is not None else ""
