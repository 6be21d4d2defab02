"""The trainable form: an fx graph of ordinary leaf modules, ready to prune, factorize and tune."""

from __future__ import annotations

import builtins
import keyword
from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import fx, nn

from edgecompress.errors import UnreadableModel, UnsupportedOperators
from edgecompress.model.importer.operators import import_graph
from edgecompress.model.importer.view import GraphView, Step
from edgecompress.model.load import Source
from edgecompress.model.names import identifier, unique

# A layer called "type" or "max" would hide a module's attribute or be renamed by fx.
_RESERVED = {*dir(fx.GraphModule), *dir(builtins), *keyword.kwlist, "graph", "code", "torch"}


@dataclass
class Trainable:
    """A single-input, single-output model that runs at any batch size.

    Attributes:
        graph: call_module nodes of leaf layers and call_function nodes of operator.add,
            torch.cat and torch.reshape; in eval mode when fresh.
        example: zeros of the input's shape, [1, C, H, W] or [1, features] float32.
        input_name: the ONNX input's name.
        output_name: the ONNX output's name.
    """

    graph: fx.GraphModule
    example: torch.Tensor
    input_name: str
    output_name: str


def to_trainable(source: Source) -> Trainable:
    """Imports a float source.

    Raises:
        UnsupportedOperators: listing every node that has no place in the form.
        UnreadableModel: the source is int8 already and has nothing to train.
    """
    if source.kind != "float" or source.onnx is None:
        raise UnreadableModel(
            f"{source.name} is quantized already; there is nothing left to train or prune.",
            next_step="Use 'edgecompress compile' on it, or bring the float model.",
        )
    view, steps, refused = import_graph(source.onnx)
    if refused:
        raise UnsupportedOperators(refused, next_step="Replace them, or cut the model there.")
    return Trainable(
        graph=_build(view, steps),
        example=torch.zeros(view.shape(view.input_name)),
        input_name=view.input_name,
        output_name=view.output_name,
    )


def _build(view: GraphView, steps: list[Step]) -> fx.GraphModule:
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    graph = fx.Graph()
    placeholder = unique(identifier(view.input_name), _RESERVED)
    values = {view.input_name: graph.placeholder(placeholder)}
    # A placeholder shares the graph's name space with the layers.
    taken = {*_RESERVED, placeholder, "output"}
    for step in steps:
        inputs = [values[name] for name in step.inputs]
        result = inputs[0]
        for suffix, module in step.modules:
            target = unique(identifier(step.name + suffix), taken)
            taken.add(target)
            modules[target] = module
            result = graph.create_node("call_module", target, (result,), name=target)
        if step.function is not None:
            arguments = (inputs, *step.extra) if step.packed else (*inputs, *step.extra)
            name = unique(identifier(step.name), taken)
            taken.add(name)
            result = graph.create_node("call_function", step.function, arguments, name=name)
        values[step.output] = result
    graph.output(values[view.output_name])
    graph.lint()
    root = nn.Module()
    for name, module in modules.items():
        root.add_module(name, module)
    return fx.GraphModule(root, graph).eval()
