"""Reshape and its relatives, Transpose where it moves nothing, and Pad."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from torch import nn

from edgecompress.model.importer.view import GraphView, Refused, Step, attribute

RESHAPES = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})


def reshape(node: onnx.NodeProto, view: GraphView) -> Step:
    """Reshape, Flatten, Squeeze and Unsqueeze, told apart only by their static shapes.

    To [1, features] is nn.Flatten; other shapes that keep the batch are torch.reshape with -1 for
    it, so that any batch runs; an unchanged shape is nothing. Of several in a row only the last
    remains.
    """
    source = _before_reshapes(view.activation(node), view)
    before, after = view.shape(source), view.shape(node.output[0])
    if before[0] != 1 or not after or after[0] != 1:
        raise Refused(f"{list(before)} to {list(after)} does not keep the batch dimension first")
    if before == after:
        return Step(node.name, (source,), node.output[0])
    if len(after) == 2:
        return Step(node.name, (source,), node.output[0], modules=(("", nn.Flatten()),))
    return Step(
        node.name,
        (source,),
        node.output[0],
        function=torch.reshape,
        extra=((-1, *after[1:]),),
    )


def _before_reshapes(tensor: str, view: GraphView) -> str:
    """The tensor whose elements, in the same order, `tensor` holds."""
    producer = view.producers.get(tensor)
    while producer is not None and producer.op_type in RESHAPES:
        tensor = view.activation(producer)
        producer = view.producers.get(tensor)
    return tensor


def transpose(node: onnx.NodeProto, view: GraphView) -> Step:
    """A reshape where only dimensions of size 1 move; time and features of a sequence swapped."""
    source = view.activation(node)
    shape = view.shape(source)
    order = [int(axis) for axis in attribute(node, "perm", list(reversed(range(len(shape)))))]
    moved = [axis for axis in order if shape[axis] != 1]
    if order == [0, 2, 1] and moved != sorted(moved):
        return Step(
            node.name, (source,), node.output[0], function=torch.permute, extra=((0, 2, 1),)
        )
    if moved != sorted(moved) or order[0] != 0:
        raise Refused(
            f"perm {order} reorders a {list(shape)} tensor; models must be [N, C, H, W] throughout"
        )
    return reshape(node, view)


def pad(node: onnx.NodeProto, view: GraphView) -> Step:
    """A constant around height and width: nn.ZeroPad2d or nn.ConstantPad2d."""
    source = view.activation(node)
    rank = len(view.shape(source))
    mode = attribute(node, "mode", "constant")
    pads = view.input_or_attribute(node, 1, "pads")
    value = view.input_or_attribute(node, 2, "value")
    axes = view.optional(node, 3, "axes")
    if mode != "constant":
        raise Refused(f"mode '{mode}'; only 'constant' is supported")
    if pads is None or rank != 4:
        raise Refused("only constant pads around [N, C, H, W] are supported")
    before, after = _per_axis(pads, axes, rank)
    if any(before[:2]) or any(after[:2]) or min(*before, *after) < 0:
        raise Refused(f"pads {before} and {after}; only positive ones on H and W are supported")
    sides = (before[3], after[3], before[2], after[2])
    fill = 0.0 if value is None else float(value)
    if not any(sides):
        return Step(node.name, (source,), node.output[0])
    module = nn.ZeroPad2d(sides) if fill == 0.0 else nn.ConstantPad2d(sides, fill)
    return Step(node.name, (source,), node.output[0], modules=(("", module),))


def _per_axis(pads: np.ndarray, axes: np.ndarray | None, rank: int) -> tuple[list[int], list[int]]:
    """Begin and end padding of every axis, from ONNX's [begins..., ends...] over `axes`."""
    chosen = list(range(rank)) if axes is None else [int(axis) % rank for axis in axes]
    flat = [int(value) for value in pads.reshape(-1)]
    before, after = [0] * rank, [0] * rank
    for position, axis in enumerate(chosen):
        before[axis], after[axis] = flat[position], flat[position + len(chosen)]
    return before, after
