"""Concatenation of int8 tensors; a part with other parameters goes through a table of 256."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax, te, tirx

from edgecompress.lower.kernels.interface import Match
from edgecompress.lower.kernels.lookup import requantize_table

if TYPE_CHECKING:
    from edgecompress.lower.passes.graph import Graph


@dataclass(frozen=True)
class Concat:
    """Joins parts along `axis`.

    Arguments: the parts, int8; then for each part with `rescaled`, in order, a table [256] int8.
    """

    shapes: tuple[tuple[int, ...], ...]
    axis: int
    rescaled: tuple[bool, ...]
    op: str = "concat"
    macs: int = 0

    def _parts(self, arguments: tuple[Any, ...]) -> list[tuple[Any, Any]]:
        """(part, its table or None)."""
        tables = iter(arguments[len(self.shapes) :])
        return [
            (part, next(tables) if rescaled else None)
            for part, rescaled in zip(arguments, self.rescaled, strict=False)
        ]

    def compute(self, *tensors: Any) -> Any:
        parts, axis = self._parts(tensors), self.axis
        ends = np.cumsum([shape[axis] for shape in self.shapes]).tolist()
        starts = [0, *ends[:-1]]

        def value(part: Any, table: Any, index: tuple[Any, ...], start: int) -> Any:
            moved = (*index[:axis], index[axis] - start, *index[axis + 1 :])
            return part[moved] if table is None else table[part[moved].astype("int32") + 128]

        def at(*index: Any) -> Any:
            result = value(*parts[-1], index, starts[-1])
            for (part, table), start, end in reversed(
                list(zip(parts[:-1], starts, ends, strict=False))
            ):
                result = tirx.if_then_else(
                    index[axis] < end, value(part, table, index, start), result
                )
            return result

        shape = list(self.shapes[0])
        shape[axis] = ends[-1]
        return te.compute(shape, at, "output")

    def schedule(self, schedule: Any, function_name: str) -> None:
        pass

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        parts = [
            part if table is None else table[part.astype(np.int32) + 128]
            for part, table in self._parts(arrays)
        ]
        return np.concatenate(parts, self.axis)


def match(graph: Graph, value: relax.Var) -> Match | None:
    """quantize(activation?(concat(dequantize(x0), dequantize(x1), ...)))."""
    output = graph.output(value)
    call = None if output is None else graph.call(output.source, "concat")
    parts_tuple = None if call is None else graph.value(call.args[0])
    if output is None or call is None or not isinstance(parts_tuple, relax.Tuple):
        return None
    found = [graph.activation(field) for field in parts_tuple.fields]
    parts = [part for part in found if part is not None]
    if len(parts) != len(found):
        return None
    tables = [
        requantize_table(part.scale, part.zero_point, output, graph.requantize) for part in parts
    ]
    identity = np.arange(-128, 128, dtype=np.int8)
    rescaled = tuple(not np.array_equal(table, identity) for table in tables)
    kernel = Concat(
        tuple(graph.device_shape(part.value) for part in parts),
        graph.device_axis(value, int(call.attrs.axis)),
        rescaled,
    )
    used = tuple(table for table, needed in zip(tables, rescaled, strict=True) if needed)
    return Match(kernel, tuple(part.value for part in parts), used)
