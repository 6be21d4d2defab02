"""Concatenation of int8 tensors; a part with other parameters goes through a table of 256."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import te, tirx


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
