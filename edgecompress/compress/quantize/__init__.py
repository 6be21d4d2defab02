"""Trainable in, deployable out: post-training int8 quantization written as ONNX QDQ."""

from edgecompress.compress.quantize.evaluate import evaluate_deployable
from edgecompress.compress.quantize.export import quantize

__all__ = ["evaluate_deployable", "quantize"]
