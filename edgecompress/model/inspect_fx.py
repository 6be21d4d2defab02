"""Sizes of a float model, from its trainable form and one forward pass of zeros."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import fx, nn

from edgecompress.model.load import Source
from edgecompress.model.recurrent import Recurrent
from edgecompress.model.steps import StepSize, StepTable
from edgecompress.model.trainable import Trainable, to_trainable

_BIAS_BYTES = 4
_FLOAT_BYTES = 4
# Computed in the producer's epilogue, or only another name for its bytes.
_FUSED = (nn.BatchNorm1d, nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.Flatten, nn.Identity)
_FUSED_FUNCTIONS = (torch.flatten, torch.reshape)


class _Shapes(fx.Interpreter):
    """Runs the graph and remembers every node's output shape."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.shapes: dict[str, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, torch.Tensor):
            self.shapes[n.name] = tuple(result.shape)
        return result


def output_shapes(trainable: Trainable) -> dict[str, tuple[int, ...]]:
    """fx node name to output shape, at the example's batch of 1."""
    interpreter = _Shapes(trainable.graph)
    was_training = trainable.graph.training
    trainable.graph.eval()
    with torch.no_grad():
        interpreter.run(trainable.example)
    trainable.graph.train(was_training)
    return interpreter.shapes


def inspect_trainable(source: Source) -> StepTable:
    """Raises UnsupportedOperators where the source cannot be imported."""
    return step_table(to_trainable(source))


def step_table(trainable: Trainable) -> StepTable:
    """A trainable model as sized steps, without the batch norms' own arithmetic."""
    shapes = output_shapes(trainable)
    modules = dict(trainable.graph.named_modules())
    steps: list[StepSize] = []
    placeholder = output = ""
    for node in trainable.graph.graph.nodes:
        if node.op == "placeholder":
            placeholder = node.name
        elif node.op == "output":
            output = node.all_input_nodes[0].name
        else:
            steps.append(_step(node, modules, shapes))
    return StepTable(placeholder, tuple(trainable.example.shape), output, tuple(steps))


def _step(
    node: fx.Node, modules: Mapping[str, nn.Module], shapes: dict[str, tuple[int, ...]]
) -> StepSize:
    module = modules[str(node.target)] if node.op == "call_module" else None
    function = getattr(node.target, "__name__", str(node.target))
    fused = isinstance(module, _FUSED) if module is not None else node.target in _FUSED_FUNCTIONS
    first = node.all_input_nodes[0]
    return StepSize(
        name=node.name,
        op=type(module).__name__ if module is not None else function,
        inputs=tuple(source.name for source in node.all_input_nodes),
        output=node.name,
        output_shape=shapes[node.name],
        macs=_macs(module, shapes[first.name], shapes[node.name]),
        weight_bytes_float=_float_bytes(module),
        weight_bytes_int8=_int8_bytes(module),
        # Nothing before the input can hold the epilogue.
        fused=fused and first.op != "placeholder",
    )


def _macs(
    module: nn.Module | None, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
) -> int:
    if isinstance(module, nn.Conv2d):
        return prod(output_shape) * prod(module.weight.shape[1:])
    if isinstance(module, nn.Linear):
        return prod(output_shape[:-1]) * module.weight.numel()
    if isinstance(module, Recurrent):
        steps = prod(output_shape[:-1]) if module.sequence else input_shape[1]
        return steps * sum(
            weight.numel() for weight in module.layer.parameters() if weight.dim() > 1
        )
    return 0


def _float_bytes(module: nn.Module | None) -> int:
    if module is None:
        return 0
    tensors = [*module.parameters(), *module.buffers()]
    return _FLOAT_BYTES * sum(t.numel() for t in tensors if t.is_floating_point())


def _int8_bytes(module: nn.Module | None) -> int:
    if isinstance(module, Recurrent):
        weights = [weight for weight in module.layer.parameters() if weight.dim() > 1]
        rows = module.gates * module.hidden
        return sum(weight.numel() for weight in weights) + 2 * _BIAS_BYTES * rows
    if not isinstance(module, nn.Conv2d | nn.Linear):
        return 0
    # There is always a bias: folding BatchNorm and the input's zero point makes one.
    return module.weight.numel() + _BIAS_BYTES * module.weight.shape[0]
