"""A student's graph, layer by layer, with the sizes its image will have to hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import fx, nn

from edgecompress.model.trainable import Trainable

_CHANNEL_BYTES = 8  # int32 bias and multiplier


@dataclass(frozen=True)
class Value:
    """A tensor under construction: its shape [1, ...] and its fx node, None in a draft."""

    node: fx.Node | None
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        return prod(self.shape)


class Builder:
    """Adds layers to an fx graph and counts; a draft only counts, in microseconds.

    Attributes:
        weight_bytes: int8 weights with their biases and multipliers.
        macs: multiply-accumulates of one inference.
        peak_bytes: most int8 activation bytes alive at one layer, kept skips included.
    """

    def __init__(self, input_shape: tuple[int, ...], *, draft: bool = False) -> None:
        self._graph, self._root = None if draft else fx.Graph(), nn.Module()
        self.weight_bytes = self.macs = self.peak_bytes = self._kept_bytes = 0
        self._input_shape = input_shape
        first = None if self._graph is None else self._graph.placeholder("input")
        self.input = Value(first, input_shape)

    def reshape(self, name: str, x: Value, shape: tuple[int, ...]) -> Value:
        return Value(self._function(name, torch.reshape, x.node, (-1, *shape[1:])), shape)

    def time_first(self, name: str, x: Value) -> Value:
        """[1, time, features] as [1, features, time]."""
        node = self._function(name, torch.permute, x.node, (0, 2, 1))
        return self._counted(x, Value(node, (1, x.shape[2], x.shape[1])))

    def convolution(
        self,
        name: str,
        x: Value,
        channels: int,
        kernel: tuple[int, int],
        *,
        stride: tuple[int, int] = (1, 1),
        depthwise: bool = False,
        activation: bool = True,
    ) -> Value:
        """Convolution padded to ceil(size / stride), BatchNorm, and ReLU6 unless it is linear."""
        inputs = x.shape[1]
        padding = (kernel[0] // 2, kernel[1] // 2)
        groups = inputs if depthwise else 1
        size = (
            (x.shape[2] + 2 * padding[0] - kernel[0]) // stride[0] + 1,
            (x.shape[3] + 2 * padding[1] - kernel[1]) // stride[1] + 1,
        )

        def make() -> nn.Module:
            return nn.Conv2d(inputs, channels, kernel, stride, padding, groups=groups, bias=False)

        y = Value(self._call(f"{name}_conv", make, x), (1, channels, *size))
        self._weights(channels * prod(kernel) * (inputs // groups), channels, prod(size))
        self._counted(x, y)
        y = Value(self._call(f"{name}_norm", lambda: nn.BatchNorm2d(channels), y), y.shape)
        return Value(self._call(f"{name}_relu", nn.ReLU6, y), y.shape) if activation else y

    def add(self, name: str, x: Value, skip: Value) -> Value:
        node = self._function(name, torch.add, skip.node, x.node)
        return Value(node, x.shape)

    def keep(self, x: Value | None) -> None:
        """Says which tensor stays alive beside the layers that follow; None ends it."""
        self._kept_bytes = 0 if x is None else x.size_bytes

    def shrink(self, name: str, x: Value, factor: tuple[int, int]) -> Value:
        """Average pooling: a lower resolution."""
        shape = (*x.shape[:2], x.shape[2] // factor[0], x.shape[3] // factor[1])
        return self._counted(x, Value(self._call(name, lambda: nn.AvgPool2d(factor), x), shape))

    def dense(self, name: str, x: Value, outputs: int, *, activation: bool) -> Value:
        inputs = x.shape[1]
        node = self._call(name, lambda: nn.Linear(inputs, outputs), x)
        y = self._counted(x, Value(node, (1, outputs)))
        self._weights(inputs * outputs, outputs, 1)
        return Value(self._call(f"{name}_relu", nn.ReLU, y), y.shape) if activation else y

    def head(self, x: Value, outputs: int) -> Value:
        """Global average, then one dense layer."""
        pooled = Value(
            self._call("pool", lambda: nn.AdaptiveAvgPool2d(1), x), (1, x.shape[1], 1, 1)
        )
        flat = Value(self._call("flatten", nn.Flatten, pooled), (1, x.shape[1]))
        return self.dense("head", self._counted(x, flat), outputs, activation=False)

    def softmax(self, x: Value) -> Value:
        return Value(self._call("softmax", lambda: nn.Softmax(dim=1), x), x.shape)

    def trainable(self, output: Value) -> Trainable:
        """The finished network in eval mode; a draft has none."""
        assert self._graph is not None
        assert output.node is not None
        self._graph.output(output.node)
        self._graph.lint()
        graph = fx.GraphModule(self._root, self._graph).eval()
        return Trainable(graph, torch.zeros(self._input_shape), "input", "output")

    def _call(self, name: str, make: Callable[[], nn.Module], x: Value) -> fx.Node | None:
        if self._graph is None:
            return None
        self._root.add_module(name, make())
        return self._graph.create_node("call_module", name, (x.node,), name=name)

    def _function(self, name: str, function: Callable[..., Any], *arguments: Any) -> fx.Node | None:
        if self._graph is None:
            return None
        return self._graph.create_node("call_function", function, arguments, name=name)

    def _weights(self, count: int, channels: int, positions: int) -> None:
        self.weight_bytes += count + _CHANNEL_BYTES * channels
        self.macs += count * positions

    def _counted(self, x: Value, y: Value) -> Value:
        skip = self._kept_bytes if self._kept_bytes != x.size_bytes else 0
        self.peak_bytes = max(self.peak_bytes, x.size_bytes + y.size_bytes + skip)
        return y
