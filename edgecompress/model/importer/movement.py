"""ONNX operators that only move elements, done on arrays of addresses."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from edgecompress.model.importer.view import Refused, attribute

MOVERS = frozenset(
    {
        "Dropout", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze",
        "Transpose", "Unsqueeze",
    }
)  # fmt: skip


def move(
    node: onnx.NodeProto,
    addresses: np.ndarray,
    constants: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, np.ndarray]:
    """The addresses of each output.

    Args:
        addresses: of the first input, in its shape.
        constants: values of the other inputs.
        shapes: static shapes of the outputs.

    Raises:
        Refused: an index, range or split that is computed, or with other steps than 1.
    """
    output = node.output[0]
    kind = node.op_type
    if kind in ("Dropout", "Identity"):
        return {output: addresses}
    if kind == "Transpose":
        rank = addresses.ndim
        return {output: addresses.transpose(attribute(node, "perm", list(range(rank))[::-1]))}
    if kind == "Gather":
        index = _input(node, constants, 1)
        axis = int(attribute(node, "axis", 0)) % addresses.ndim
        return {output: np.take(addresses, index.astype(np.int64), axis)}
    if kind == "Slice":
        return {output: _slice(node, addresses, constants)}
    if kind == "Split":
        axis = int(attribute(node, "axis", 0)) % addresses.ndim
        sizes = [shapes[name][axis] for name in node.output]
        parts = np.split(addresses, np.cumsum(sizes)[:-1], axis)
        return dict(zip(node.output, parts, strict=True))
    return {output: addresses.reshape(shapes[output])}


def _input(node: onnx.NodeProto, constants: Mapping[str, np.ndarray], index: int) -> np.ndarray:
    name = node.input[index]
    if name not in constants:
        raise Refused(f"input {index} ('{name}') is computed, not a constant")
    return constants[name]


def _slice(
    node: onnx.NodeProto, addresses: np.ndarray, constants: Mapping[str, np.ndarray]
) -> np.ndarray:
    if len(node.input) < 3:
        starts, ends = attribute(node, "starts", []), attribute(node, "ends", [])
        axes, steps = attribute(node, "axes", range(len(starts))), [1] * len(starts)
    else:
        starts, ends = (_input(node, constants, index).reshape(-1) for index in (1, 2))
        given = [len(node.input) > index and bool(node.input[index]) for index in (3, 4)]
        axes = _input(node, constants, 3).reshape(-1) if given[0] else range(len(starts))
        steps = _input(node, constants, 4).reshape(-1) if given[1] else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if int(step) < 1:
            raise Refused("a slice backwards")
        taken = [slice(None)] * addresses.ndim
        taken[int(axis) % addresses.ndim] = slice(int(start), int(end), int(step))
        addresses = addresses[tuple(taken)]
    return addresses
