"""A kernel that makes some rows of another kernel's output, bit for bit.

Worked example: a 3x3 convolution with one row of padding above and below makes 8 rows of 8. Its
rows 0-3 read input rows -1 to 4; row -1 is padding, so that stripe is the same convolution of 5
input rows with 1 row of padding above and none below. Rows 4-7 read 3 to 8: 5 rows again, padded
below. The two rows that both stripes read are the halo.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import singledispatch
from typing import TypeVar

from edgecompress.lower.kernels import conv2d, pooling
from edgecompress.lower.kernels.add import Add
from edgecompress.lower.kernels.average_pool2d import AveragePool2d
from edgecompress.lower.kernels.concat import Concat
from edgecompress.lower.kernels.conv2d import Conv2D
from edgecompress.lower.kernels.conv2d_add import Conv2DAdd
from edgecompress.lower.kernels.depthwise_conv2d import DepthwiseConv2D
from edgecompress.lower.kernels.lookup import Lookup
from edgecompress.lower.kernels.max_pool2d import MaxPool2d
from edgecompress.lower.kernels.multiply import Multiply
from edgecompress.lower.kernels.pad import Pad
from edgecompress.lower.program import Kernel

_ROWS = 1
"""The axis of NHWC that stripes divide."""


@dataclass(frozen=True)
class Rows:
    """Rows `first` up to, not including, `end`."""

    first: int
    end: int

    @property
    def count(self) -> int:
        return self.end - self.first

    def hull(self, other: Rows) -> Rows:
        """The least run of rows that holds both."""
        return Rows(min(self.first, other.first), max(self.end, other.end))


@dataclass(frozen=True)
class Stripe:
    """`kernel` makes the rows asked for from these rows of each activation argument, in order."""

    kernel: Kernel
    inputs: tuple[Rows, ...]


class CannotStripe(Exception):
    """The kernel's rows cannot be made apart from each other."""


@singledispatch
def stripe(kernel: object, rows: Rows) -> Stripe:  # noqa: ARG001 (the other kernels' signature)
    """The kernel of some output rows.

    Args:
        rows: at least one, inside the output of `kernel`, whose tensors are [1, H, W, C].

    Raises:
        CannotStripe: every row needs the whole input, or the kernel is none of those known here.
    """
    raise CannotStripe(f"{type(kernel).__name__} has no stripes")


_Window = TypeVar("_Window", conv2d.Window, pooling.Window)


def _window(window: _Window, rows: Rows, reach: int) -> tuple[_Window, Rows]:
    """The window of some output rows and the input rows it reads; `reach` rows a single one."""
    _, height, width, channels = _image(window.input_shape)
    top, left, _, right = window.padding
    first = rows.first * window.strides[0] - top
    end = (rows.end - 1) * window.strides[0] - top + reach
    read = Rows(max(first, 0), min(end, height))
    if read.count < 1:
        raise CannotStripe("a stripe would read nothing but padding")
    padding = (max(-first, 0), left, max(end - height, 0), right)
    return replace(window, input_shape=(1, read.count, width, channels), padding=padding), read


def _image(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != 4 or shape[0] != 1:
        raise CannotStripe("only one image at a time has rows")
    return shape


def _rows_of(shape: tuple[int, ...], rows: Rows) -> tuple[int, ...]:
    return (1, rows.count, *_image(shape)[2:])


@stripe.register
def _(kernel: Conv2D, rows: Rows) -> Stripe:
    window, read = _convolution(kernel.window, rows)
    return Stripe(replace(kernel, window=window), (read,))


@stripe.register
def _(kernel: DepthwiseConv2D, rows: Rows) -> Stripe:
    window, read = _convolution(kernel.window, rows)
    return Stripe(replace(kernel, window=window), (read,))


def _convolution(window: conv2d.Window, rows: Rows) -> tuple[conv2d.Window, Rows]:
    return _window(window, rows, window.dilation[0] * (window.size[0] - 1) + 1)


@stripe.register
def _(kernel: Conv2DAdd, rows: Rows) -> Stripe:
    window, read = _convolution(kernel.conv.window, rows)
    conv = replace(kernel.conv, window=window)
    add = replace(kernel.add, shape=conv.output_shape, other_shape=conv.output_shape)
    return Stripe(replace(kernel, conv=conv, add=add), (read, rows))


@stripe.register(MaxPool2d)
@stripe.register(AveragePool2d)
def _(kernel: MaxPool2d | AveragePool2d, rows: Rows) -> Stripe:
    window, read = _window(kernel.window, rows, kernel.window.kernel[0])
    return Stripe(replace(kernel, window=window), (read,))


@stripe.register
def _(kernel: Lookup, rows: Rows) -> Stripe:
    return Stripe(replace(kernel, shape=_rows_of(kernel.shape, rows)), (rows,))


@stripe.register(Add)
@stripe.register(Multiply)
def _(kernel: Add | Multiply, rows: Rows) -> Stripe:
    shape, other = _rows_of(kernel.shape, rows), kernel.other_shape
    if other == kernel.shape:
        return Stripe(replace(kernel, shape=shape, other_shape=shape), (rows, rows))
    if len(other) >= 3 and other[-3] != 1:
        raise CannotStripe("the second operand has rows of its own")
    return Stripe(replace(kernel, shape=shape), (rows, Rows(0, 1)))


@stripe.register
def _(kernel: Concat, rows: Rows) -> Stripe:
    if kernel.axis == _ROWS:
        raise CannotStripe("the parts lie one below the other")
    shapes = tuple(_rows_of(shape, rows) for shape in kernel.shapes)
    return Stripe(replace(kernel, shapes=shapes), (rows,) * len(shapes))


@stripe.register
def _(kernel: Pad, rows: Rows) -> Stripe:
    height, above = _image(kernel.shape)[_ROWS], kernel.before[_ROWS]
    read = Rows(max(rows.first - above, 0), min(rows.end - above, height))
    if read.count < 1:
        raise CannotStripe("a stripe would be nothing but padding")
    before, after = list(kernel.before), list(kernel.after)
    before[_ROWS] = max(above - rows.first, 0)
    after[_ROWS] = max(rows.end - above - height, 0)
    return Stripe(
        replace(
            kernel,
            shape=_rows_of(kernel.shape, read),
            before=tuple(before),
            after=tuple(after),
        ),
        (read,),
    )
