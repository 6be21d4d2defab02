"""A convolution whose result is only added to something: the sum is stored, the result never is.

`passes/fuse_add.py` makes these of pairs; no matcher does. Each int8 result of the convolution is
rounded and clamped as if it were stored, so that the pair and the fused kernel agree on every bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecompress.lower.kernels.add import Add
from edgecompress.lower.kernels.conv2d import Conv2D
from edgecompress.lower.program import Overlap


@dataclass(frozen=True)
class Conv2DAdd:
    """y = add(conv(x), other), or add(other, conv(x)) when `conv_operand` is 1.

    Arguments: x int8 [N, H, W, C]; other int8 [N, OH, OW, O]; then the convolution's constants.
    Output int8 [N, OH, OW, O], which may lie exactly over `other`: each element of it is read just
    before the sum is stored in its place.
    """

    conv: Conv2D
    add: Add
    conv_operand: int = 0
    op: str = "conv2d_add"

    @property
    def macs(self) -> int:
        return self.conv.macs

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        return self.conv.output_shape

    @property
    def overlaps(self) -> tuple[Overlap, ...]:
        return (*self.conv.overlaps, Overlap(1))

    def compute(self, x: Any, other: Any, *constants: Any) -> Any:
        weights, bias, *tables = constants
        return self.conv.compute(
            x,
            weights,
            bias,
            *tables,
            epilogue=lambda value, at: self.add.of_values(*self._ordered(value, other[at])),
        )

    def schedule(self, schedule: Any, function_name: str) -> None:
        self.conv.schedule(schedule, function_name)

    def reference(self, x: np.ndarray, other: np.ndarray, *constants: np.ndarray) -> np.ndarray:
        weights, bias, *tables = constants
        value = self.conv.reference(x, weights, bias, *tables)
        return self.add.reference(*self._ordered(value, other))

    def _ordered(self, value: Any, other: Any) -> tuple[Any, Any]:
        return (value, other) if self.conv_operand == 0 else (other, value)
