"""ONNX GRU and LSTM: checked, and split into one layer a direction in torch's gate order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from edgecompress.model.importer.tracing import DOMAIN, Tracer
from edgecompress.model.importer.view import Refused, attribute

# ONNX orders gates z r h (GRU) and i o f c (LSTM); torch r z n and i f g o.
_TORCH_ORDER = {"GRU": (1, 0, 2), "LSTM": (0, 2, 3, 1)}
_ACTIVATIONS = {"GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}


def emit_recurrent(
    tracer: Tracer,
    node: onnx.NodeProto,
    source: str,
    constants: Sequence[np.ndarray | None],
    given: Sequence[bool],
    label: str,
    *,
    uses_cell: bool = False,
) -> list[str]:
    """The states [1, time, hidden] of each direction.

    Args:
        source: the input as [1, time, inputs].
        uses_cell: something reads the LSTM's final cell state.
        constants: the node's inputs, None where computed or left out; `given` tells these apart.

    Raises:
        Refused: a variant without an integer kernel.
    """
    _check(node, constants, given)
    if uses_cell:
        raise Refused("its cell state is an output; only the hidden states can be")
    weights, recurrence = constants[1], constants[2]
    assert weights is not None
    assert recurrence is not None
    directions, rows, _ = weights.shape
    hidden = recurrence.shape[2]
    bias = constants[3] if len(constants) > 3 and given[3] else np.zeros((directions, 2 * rows))
    assert bias is not None
    reverse = [attribute(node, "direction", "forward") == "reverse", True]
    shape = (1, tracer.shapes[source][1], hidden)
    names = []
    for index in range(directions):
        backwards = int(reverse[index])
        arrays = (weights[index], recurrence[index], bias[index, :rows], bias[index, rows:])
        own = f"{label}_reverse" if directions == 2 and backwards else label
        inputs = [source]
        for kind, array in zip(("w", "r", "wb", "rb"), arrays, strict=True):
            ordered = _in_torch_order(np.asarray(array, np.float32), node.op_type)
            inputs.append(tracer.constant(f"{own}_{kind}", ordered))
        names.append(
            tracer.emit(
                "Recurrent", inputs, shape, own, DOMAIN, cell=node.op_type, reverse=backwards
            )
        )
    return names


def _in_torch_order(array: np.ndarray, kind: str) -> np.ndarray:
    """[gates * hidden, ...] with the gates in torch's order."""
    order = _TORCH_ORDER[kind]
    gates = array.reshape(len(order), -1, *array.shape[1:])
    return gates[list(order)].reshape(array.shape)


def _check(
    node: onnx.NodeProto, constants: Sequence[np.ndarray | None], given: Sequence[bool]
) -> None:
    kind = node.op_type

    def has(index: int) -> bool:
        return len(given) > index and given[index]

    for index, what in ((1, "weight"), (2, "recurrence weight"), (3, "bias")):
        if has(index) and constants[index] is None:
            raise Refused(f"its {what} is computed, not a constant")
    if has(4):
        raise Refused("sequences of variable length (sequence_lens) are unsupported")
    for index in (5, 6):
        if has(index) and (constants[index] is None or np.any(constants[index])):
            raise Refused("it starts from a state that is not zero")
    if has(7) and (constants[7] is None or np.any(constants[7])):
        raise Refused("peephole weights are unsupported")
    directions = constants[1].shape[0] if constants[1] is not None else 1
    activations = [str(_text(name)) for name in attribute(node, "activations", [])]
    if activations and activations != _ACTIVATIONS[kind] * directions:
        raise Refused(f"activations {activations}; only {_ACTIVATIONS[kind]} are supported")
    if attribute(node, "clip", 0.0):
        raise Refused("clipping inside the cell is unsupported")
    if kind == "GRU" and not attribute(node, "linear_before_reset", 0):
        raise Refused(
            "linear_before_reset=0 resets the state before its matrix product; export with "
            "linear_before_reset=1 (reset_after=True in Keras)"
        )
    if kind == "LSTM" and attribute(node, "input_forget", 0):
        raise Refused("coupled input and forget gates (input_forget=1) are unsupported")
    wanted = len(_TORCH_ORDER[kind]) * attribute(node, "hidden_size", 0)
    recurrence = constants[2]
    if wanted and recurrence is not None and recurrence.shape[1] != wanted:
        raise Refused("projected states (proj_size) are unsupported")


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
