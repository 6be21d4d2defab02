"""Reordering axes of an int8 tensor: also NHWC to the NCHW order a source's flatten meant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import te


@dataclass(frozen=True)
class Transpose:
    """y[i0, ...] = x[...] with y's axis k being x's axis axes[k]. Argument: x `shape` int8."""

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    op: str = "transpose"
    macs: int = 0

    def compute(self, *tensors: Any) -> Any:
        (x,) = tensors

        def at(*index: Any) -> Any:
            source = [index[self.axes.index(axis)] for axis in range(len(self.shape))]
            return x[tuple(source)]

        return te.compute([self.shape[axis] for axis in self.axes], at, "output")

    def schedule(self, schedule: Any, function_name: str) -> None:
        pass

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(arrays[0].transpose(self.axes))
