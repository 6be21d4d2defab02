"""Explicit and automatic padding of two-dimensional windows."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from torch import nn

from edgecompress.model.importer.view import Refused, attribute


@dataclass(frozen=True)
class Padding:
    """Rows and columns added at each side."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def symmetric(self) -> bool:
        return self.top == self.bottom and self.left == self.right

    def module(self) -> nn.ZeroPad2d:
        return nn.ZeroPad2d((self.left, self.right, self.top, self.bottom))


def window_padding(
    node: onnx.NodeProto,
    input_shape: tuple[int, ...],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> Padding:
    """The node's padding in numbers.

    SAME pads to an output of ceil(size / stride), the odd row at the end for SAME_UPPER and at
    the beginning for SAME_LOWER (ONNX operator specification, Conv).
    """
    automatic = attribute(node, "auto_pad", "NOTSET")
    if automatic in ("NOTSET", ""):
        pads = attribute(node, "pads", [0, 0, 0, 0])
        if len(pads) != 4 or min(pads) < 0:
            raise Refused(f"pads {list(pads)}; four numbers, none negative, are supported")
        return Padding(*(int(pad) for pad in pads))
    if automatic == "VALID":
        return Padding(0, 0, 0, 0)
    if automatic not in ("SAME_UPPER", "SAME_LOWER"):
        raise Refused(f"auto_pad '{automatic}' is not one of NOTSET, VALID, SAME_UPPER, SAME_LOWER")
    before, after = [], []
    for size, window, step, spread in zip(input_shape[2:], kernel, stride, dilation, strict=True):
        outputs = -(-size // step)
        total = max(0, (outputs - 1) * step + spread * (window - 1) + 1 - size)
        small, large = total // 2, total - total // 2
        before.append(small if automatic == "SAME_UPPER" else large)
        after.append(large if automatic == "SAME_UPPER" else small)
    return Padding(before[0], before[1], after[0], after[1])


def pair(node: onnx.NodeProto, key: str, default: tuple[int, int]) -> tuple[int, int]:
    """A two-number attribute (strides, dilations, kernel_shape)."""
    value = attribute(node, key, list(default))
    if len(value) != 2:
        raise Refused(f"{key} has {len(value)} numbers; only two-dimensional windows are supported")
    return int(value[0]), int(value[1])


def require_image(shape: tuple[int, ...]) -> None:
    """Raises Refused unless the tensor is [N, C, H, W]."""
    if len(shape) != 4:
        raise Refused(f"input has {len(shape)} dimensions; only [N, C, H, W] is supported")
