"""The planner's picture of a model: the steps the compiler will make of it, before it makes them.

Worked example: `relu(bn(conv(x))) + x` becomes two steps,

    conv  conv2d  x -> conv          (BatchNorm and ReLU live inside it)
    add   add     conv, x -> add     (a ReLU behind it would live inside it too)

Every tensor is a list of channel `Part`s; a part names the coupled group it belongs to, so the
bytes of the same network at any widths follow without touching the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import fx, nn

from edgecompress.compress.groups import ChannelGroup, find_groups
from edgecompress.compress.layers import is_depthwise, kind_of, layer_name, module_of
from edgecompress.model.recurrent import Recurrent
from edgecompress.model.trainable import Trainable

LINEAR_OPS = ("conv2d", "depthwise_conv2d", "dense")
_FUSES_RELU = (*LINEAR_OPS, "add")


@dataclass(frozen=True)
class Part:
    """`channels` neighbouring channels; `repeat` features each once a map has been flattened."""

    group: str | None
    channels: int
    repeat: int = 1

    def count(self, widths: Mapping[str, int]) -> int:
        kept = self.channels if self.group is None else widths.get(self.group, self.channels)
        return kept * self.repeat


@dataclass(frozen=True)
class Tensor:
    """An int8 activation: its channel parts at `positions` places (height x width, or 1).

    `storage` names the tensor whose bytes these are: itself, or the source of a reshape.
    """

    name: str
    parts: tuple[Part, ...]
    positions: int
    storage: str

    def channels(self, widths: Mapping[str, int]) -> int:
        return sum(part.count(widths) for part in self.parts)

    def size_bytes(self, widths: Mapping[str, int]) -> int:
        return self.channels(widths) * self.positions


@dataclass(frozen=True)
class PlannedStep:
    """One kernel call to be. `taps` is the window or filter area; `layer` the module's name.

    `channel_groups` is a grouped convolution's count (1 for dense and ordinary convolutions);
    `factor_of` the layer a low-rank factor stands for. `fixed_bytes` are constants that
    no width changes. A recurrent layer has `gates` x channels x (inputs + channels) weights and
    uses each `times` times, once a step of time.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    output: str
    layer: str = ""
    taps: int = 1
    channel_groups: int = 1
    factor_of: str = ""
    fixed_bytes: int = 0
    gates: int = 0
    times: int = 1


@dataclass(frozen=True)
class Network:
    """Steps in execution order; `tensors` holds every activation by name."""

    steps: tuple[PlannedStep, ...]
    tensors: dict[str, Tensor]
    input: str
    output: str

    def last_uses(self) -> dict[str, int]:
        """Storage name -> index of the last step that reads it (len(steps) for the output)."""
        uses = {
            self.tensors[name].storage: index
            for index, step in enumerate(self.steps)
            for name in step.inputs
        }
        uses[self.tensors[self.output].storage] = len(self.steps)
        return uses

    def step_of_layer(self, layer: str) -> PlannedStep:
        return next(step for step in self.steps if step.layer == layer)


def read_network(trainable: Trainable, groups: Iterable = ()) -> Network:
    """The steps lowering will make of `trainable`, its channels labelled by coupled group.

    Args:
        trainable: any graph of the allowed nodes; it is run once on its example.
        groups: `ChannelGroup`s of the same graph; without them every channel count is fixed.

    Raises:
        UnsupportedOperators: the graph holds a node outside the allowed list.
    """
    owners = {layer: group.name for group in groups for layer in group.producers}
    return _Reader(trainable, owners).read()


def prunable_groups(trainable: Trainable) -> list[ChannelGroup]:
    """The groups whose every producer makes all of the group's channels, more than four of them.

    A group that concatenation joins with narrower producers keeps its width.
    """
    labelled = read_network(trainable, find_groups(trainable))
    made: dict[str, set[int]] = {}
    for tensor in labelled.tensors.values():
        for part in tensor.parts:
            if part.group is not None:
                made.setdefault(part.group, set()).add(part.channels)
    return [
        group
        for group in find_groups(trainable)
        if made.get(group.name) == {group.channels} and group.channels > 4
    ]


class _Reader:
    """One walk over the FX graph; `alias` maps a node to the tensor that carries its value."""

    def __init__(self, trainable: Trainable, owners: dict[str, str]) -> None:
        self.graph = trainable.graph
        self.shapes = _shapes(trainable)
        self.owners = owners
        self.alias: dict[str, str] = {}
        self.tensors: dict[str, Tensor] = {}
        self.steps: list[PlannedStep] = []

    def read(self) -> Network:
        first = last = ""
        for node in self.graph.graph.nodes:
            if node.op == "placeholder":
                first = self.define(node, None)
            elif node.op == "output":
                last = self.alias[_inputs(node)[0].name]
            else:
                self.read_node(node, kind_of(node))
        return Network(tuple(self.steps), self.tensors, first, last)

    def define(self, node: fx.Node, parts: tuple[Part, ...] | None) -> str:
        shape = self.shapes[node.name]
        parts = parts or (Part(None, shape[_channel_axis(node, shape)]),)
        positions = math.prod(shape[1:]) // sum(part.count({}) for part in parts)
        self.tensors[node.name] = Tensor(node.name, parts, positions, node.name)
        self.alias[node.name] = node.name
        return node.name

    def source(self, node: fx.Node, index: int = 0) -> str:
        return self.alias[_inputs(node)[index].name]

    def same(self, node: fx.Node) -> None:
        self.alias[node.name] = self.source(node)

    def step(self, node: fx.Node, op: str, parts: tuple[Part, ...] | None, **more) -> None:
        sources = tuple(self.alias[item.name] for item in _inputs(node))
        if parts is None:
            parts = self.tensors[sources[0]].parts
        self.steps.append(PlannedStep(node.name, op, sources, self.define(node, parts), **more))

    def read_node(self, node: fx.Node, kind: str) -> None:
        match kind:
            case "conv" | "linear":
                self.read_linear(node)
            case "batchnorm":
                self.fold_or_step(node, LINEAR_OPS, "depthwise_conv2d")
            case "relu" | "relu6":
                self.fold_or_step(node, _FUSES_RELU, "lookup")
            case "maxpool" | "avgpool":
                window = getattr(module_of(node), "kernel_size")  # noqa: B009
                op = "max_pool2d" if kind == "maxpool" else "average_pool2d"
                self.step(node, op, None, taps=_area(window))
            case "recurrent":
                self.read_recurrent(node)
            case "globalpool" | "mean":
                self.step(node, "mean", None, taps=self.tensors[self.source(node)].positions)
            case "pad" if len(node.users) == 1 and kind_of(next(iter(node.users))) == "conv":
                self.same(node)  # zero padding becomes the convolution's own
            case "pad" | "select":
                self.step(node, kind, None)
            case "softmax" | "scores":
                op = "attention_scores" if kind == "scores" else kind
                self.step(node, op, (Part(None, self.shapes[node.name][-1]),))
            case "mix":
                values = self.tensors[self.source(node, 1)].parts
                self.step(node, "attention_mix", values)
            case "gelu" | "sigmoid" | "tanh":
                self.step(node, "lookup", None)
            case "layernorm":
                features = self.shapes[node.name][-1]
                self.step(node, "layer_norm", None, fixed_bytes=8 * features)
            case "offset":
                size = math.prod(self.shapes[node.name])
                self.step(node, "add", None, fixed_bytes=size)
            case "permute":
                self.step(node, "transpose", None)
            case "flatten" | "reshape":
                self.reshape(node)
            case "identity":
                self.same(node)
            case "add":
                parts = [self.tensors[self.alias[item.name]].parts for item in _inputs(node)]
                named = [each for each in parts if any(part.group for part in each)]
                self.step(node, "add", (named or parts)[0])
            case "cat":
                self.read_concat(node)
            case _:
                raise ValueError(f"node {node.name}: no step is known for '{kind}'")

    def read_concat(self, node: fx.Node) -> None:
        sources = [self.tensors[self.alias[item.name]] for item in _inputs(node)]
        joined = tuple(part for item in sources for part in item.parts)
        shape = self.shapes[node.name]
        channels = shape[_channel_axis(node, shape)]
        along_channels = sum(part.count({}) for part in joined) == channels
        self.step(node, "concat", joined if along_channels else None)

    def read_linear(self, node: fx.Node) -> None:
        module, layer = module_of(node), layer_name(node)
        if isinstance(module, nn.Conv2d):
            taps, groups, out = _area(module.kernel_size), module.groups, module.out_channels
            op = "depthwise_conv2d" if is_depthwise(module) else "conv2d"
        else:
            assert isinstance(module, nn.Linear)
            taps, groups, out, op = 1, 1, module.out_features, "dense"
        # A depthwise layer narrows with its input; every other one has channels of its own.
        own = (Part(self.owners.get(layer), out),)
        parts = None if op == "depthwise_conv2d" else own
        self.step(node, op, parts, layer=layer, taps=taps, channel_groups=groups)

    def read_recurrent(self, node: fx.Node) -> None:
        layer, name = module_of(node), layer_name(node)
        assert isinstance(layer, Recurrent)
        self.step(
            node,
            type(layer).__name__.lower(),
            (Part(self.owners.get(name), layer.hidden),),
            gates=layer.gates,
            times=self.shapes[_inputs(node)[0].name][1],
        )

    def fold_or_step(self, node: fx.Node, hosts: tuple[str, ...], op: str) -> None:
        """Into the producer when that is a host whose value nobody else needs."""
        before = _inputs(node)[0]
        made_by = {step.output: step for step in self.steps}
        host = made_by.get(self.alias[before.name])
        if host is not None and host.op in hosts and len(before.users) == 1:
            self.same(node)
        else:
            self.step(node, op, None)

    def reshape(self, node: fx.Node) -> None:
        """A reshape costs nothing: the same bytes under another shape."""
        tensor = self.tensors[self.source(node)]
        shape = self.shapes[node.name]
        ranks = {len(shape), len(self.shapes[_inputs(node)[0].name])}
        if ranks == {3, 4} and tensor.positions > 1:
            # a sequence becomes a map, or back: the device stores channels last in both
            parts = None if len(shape) == 3 else (Part(None, shape[1]),)
            known = any(part.group for part in tensor.parts)
            self.step(node, "transpose", None if known else parts)
            return
        if len(shape) != 2 or tensor.positions == 1:
            self.same(node)
            return
        parts = tuple(replace(part, repeat=part.repeat * tensor.positions) for part in tensor.parts)
        self.tensors[node.name] = Tensor(node.name, parts, 1, tensor.storage)
        self.alias[node.name] = node.name


def _inputs(node: fx.Node) -> list[fx.Node]:
    """Tensor arguments in order, repeats kept (x + x has two)."""
    first = node.args[0]
    arguments = first if isinstance(first, list | tuple) else node.args
    return [item for item in arguments if isinstance(item, fx.Node)]


def _channel_axis(node: fx.Node, shape: tuple[int, ...]) -> int:
    """The last of a sequence [N, time, features]; 1 of maps, rows, and an input made a map."""
    becomes_map = node.op == "placeholder" and any(
        user.op == "call_function" and kind_of(user) == "reshape" for user in node.users
    )
    return 2 if len(shape) == 3 and not becomes_map else 1


def _area(kernel_size: int | tuple[int, ...]) -> int:
    return kernel_size**2 if isinstance(kernel_size, int) else math.prod(kernel_size)


def _shapes(trainable: Trainable) -> dict[str, tuple[int, ...]]:
    """Node name -> output shape at batch 1, by running the example once in evaluation mode."""
    shapes: dict[str, tuple[int, ...]] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            value = super().run_node(n)
            if isinstance(value, torch.Tensor):
                shapes[n.name] = tuple(value.shape)
            return value

    training = trainable.graph.training
    trainable.graph.eval()
    with torch.inference_mode():
        Recorder(trainable.graph).run(trainable.example[:1])
    trainable.graph.train(training)
    return shapes
