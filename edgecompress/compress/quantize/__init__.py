"""Trainable in, deployable out: post-training quantization written as ONNX QDQ."""

from edgecompress.compress.quantize.evaluate import evaluate_deployable
from edgecompress.compress.quantize.export import quantize
from edgecompress.compress.quantize.options import QuantizeOptions
from edgecompress.compress.quantize.sensitivity import LayerSensitivity, layer_sensitivity

__all__ = [
    "LayerSensitivity",
    "QuantizeOptions",
    "evaluate_deployable",
    "layer_sensitivity",
    "quantize",
]
