"""Trainable in, deployable out: post-training quantization written as ONNX QDQ."""

from edgecompress.compress.quantize.evaluate import evaluate_deployable
from edgecompress.compress.quantize.export import quantize
from edgecompress.compress.quantize.options import QuantizeOptions

__all__ = ["QuantizeOptions", "evaluate_deployable", "quantize"]
