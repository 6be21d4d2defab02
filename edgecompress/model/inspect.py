"""What a model costs before anything is done to it, layer by layer."""

from __future__ import annotations

from typing import Literal

from edgecompress.model.inspect_fx import inspect_trainable
from edgecompress.model.inspect_onnx import inspect_deployable
from edgecompress.model.inspect_tflite import inspect_tflite
from edgecompress.model.load import Source
from edgecompress.model.steps import StepSize, live_bytes
from edgecompress.records import Record


class LayerInspection(Record):
    """One operator.

    Attributes:
        output_shape: with the batch of 1, in the model's own layout.
        macs: multiply-accumulates of one inference.
        weight_bytes_float: parameters and statistics as float32; 0 where they are int8 already.
        weight_bytes_int8: int8 weights and int32 biases.
        live_bytes_int8: every int8 activation that must exist while this layer runs, the model's
            input and output included.
        fused: it is computed inside the layer before it and has no buffer of its own.
    """

    name: str
    op: str
    output_shape: tuple[int, ...]
    macs: int
    weight_bytes_float: int
    weight_bytes_int8: int
    live_bytes_int8: int
    fused: bool


class Inspection(Record):
    """All layers in execution order, their sums, and the step with the most live activations."""

    name: str
    kind: Literal["float", "deployable", "tflite"]
    hash: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    layers: tuple[LayerInspection, ...]
    macs: int
    weight_bytes_float: int
    weight_bytes_int8: int
    peak_step: str
    peak_live_bytes_int8: int


def inspect_source(source: Source) -> Inspection:
    """Costs of a model of any kind, without running or changing it.

    Raises:
        UnsupportedOperators: a float model that cannot be imported.
        UnreadableModel: a damaged TFLite file.
    """
    if source.kind == "tflite" and source.tflite is not None:
        table = inspect_tflite(source.tflite, source.name)
    elif source.kind == "deployable" and source.onnx is not None:
        table = inspect_deployable(source.onnx)
    else:
        table = inspect_trainable(source)
    live = live_bytes(table)
    layers = tuple(_layer(step, live[index]) for index, step in enumerate(table.steps))
    peak = max(range(len(layers)), key=lambda index: layers[index].live_bytes_int8)
    return Inspection(
        name=source.name,
        kind=source.kind,
        hash=source.hash,
        input_shape=table.input_shape,
        output_shape=layers[-1].output_shape,
        layers=layers,
        macs=sum(layer.macs for layer in layers),
        weight_bytes_float=sum(layer.weight_bytes_float for layer in layers),
        weight_bytes_int8=sum(layer.weight_bytes_int8 for layer in layers),
        peak_step=layers[peak].name,
        peak_live_bytes_int8=layers[peak].live_bytes_int8,
    )


def _layer(step: StepSize, live: int) -> LayerInspection:
    return LayerInspection(
        name=step.name,
        op=step.op,
        output_shape=step.output_shape,
        macs=step.macs,
        weight_bytes_float=step.weight_bytes_float,
        weight_bytes_int8=step.weight_bytes_int8,
        live_bytes_int8=live,
        fused=step.fused,
    )
