"""The integer kernels, one operator a file. The list below is the order matchers are asked in."""

from __future__ import annotations

from edgecompress.lower.kernels import (
    add,
    attention,
    average_pool2d,
    concat,
    conv2d,
    dense,
    depthwise_conv2d,
    layer_norm,
    lookup,
    matmul,
    max_pool2d,
    mean,
    multiply,
    pad,
    recurrence,
    select,
    softmax,
    transpose,
)
from edgecompress.lower.kernels.interface import Matcher

MATCHERS: list[Matcher] = [
    # a depthwise convolution is a convolution too, and the special case is the faster one
    depthwise_conv2d.match,
    conv2d.match,
    dense.match,
    matmul.match,
    add.match,
    multiply.match,
    average_pool2d.match,
    max_pool2d.match,
    mean.match,
    softmax.match,
    recurrence.match,
    attention.match,
    layer_norm.match,
    select.match,
    pad.match,
    concat.match,
    transpose.match,
    # any elementwise function of one int8 value is a table of 256; last, it takes what is left
    lookup.match,
]
