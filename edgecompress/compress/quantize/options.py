"""How a model is quantized after training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgecompress.records import Record

Observer = Literal["mse", "minmax", "percentile", "entropy"]


class QuantizeOptions(Record):
    """Settings of `quantize`; the defaults are the TensorFlow Lite rules with clipping by error.

    Attributes:
        observer: how activation ranges are chosen from calibration data, see `ranges`.
        percentile: of the values on either side of zero that "percentile" keeps, in percent.
        symmetric_activations: zero point 0 for every activation.
        activation_bits: 16 for int16 activations, which no kernel of an image takes yet; the
            deployable runs under onnxruntime.
        per_channel: one weight scale an output channel; False: one a layer.
        equalize: cross-layer equalization before anything is rounded, see `equalize`.
        correct_bias: biases take up the mean error of rounding, see `reconstruct`.
        rounding: weights to the nearest step, or each up or down as the layer's output wants it
            (AdaRound), see `adaround`.
    """

    observer: Observer = "mse"
    percentile: float = Field(default=99.99, gt=50, le=100)
    symmetric_activations: bool = False
    activation_bits: Literal[8, 16] = 8
    per_channel: bool = True
    equalize: bool = False
    correct_bias: bool = False
    rounding: Literal["nearest", "adaround"] = "nearest"
