"""Fully connected layers with weights of four bits, unpacked on the way to the multiplier.

One word holds two inputs of four channels: its halves are 4096 * D + 256 * C + 16 * B + A, signed
digits. Four multiplications of different parts of the word sum, modulo 2^32,

    the word                            4096 * D + 256 * C + 16 * B + A
    (word << 4) without its low digits              16 * (256 * C + 16 * B + A)
    SXTB16 of the word                                              16 * B + A
    SXTB16 of (word << 4)                                           16 * A

and the end tells them apart, downwards from A: C and D must stay within 20 bits, A and B within
28. Biases are added then, after the weights in the stream. 31 instructions for 32 multiplications,
where int8 pairs take 27.

Everything else is `dense.py`'s: the inputs widened into scratch, the header, the epilogue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgecompress.lower.isa.dsp.dense import DenseRoutine, as_words, dense_header
from edgecompress.lower.isa.dsp.dense_layer import DenseLayer, takes
from edgecompress.lower.isa.interface import Implementation

if TYPE_CHECKING:
    from edgecompress.lower.program import Kernel

# of a sum's magnitude, in bits, for channels A to D
_SUM_BITS = np.array([27, 27, 19, 19])
# digits, and how wide A, 16 * B + A, ... may be; the last is what a half word holds
_PLACES = np.array([1, 16, 256, 4096])
_DIGIT_BITS = np.array([3, 7, 11, 15])


@dataclass(frozen=True)
class Packed4Routine(DenseRoutine):
    """`DenseRoutine` of form "packed4"."""

    def group_start(self) -> list[str]:
        zeros = [f"movs r{sums}, #0" for sums in range(4, 8)]
        return [*zeros, "mvn r10, #0x000f000f", "ldr r11, [sp]", "ldr pc, [sp, #8]"]

    def half(self, number: int) -> list[str]:
        return ["ldmia lr!, {r2, r3}", f"b.w {10 + number}f"]

    def unit(self, number: int) -> list[str]:
        return [
            "ldmia lr!, {r0-r3}",
            "ldmia r11!, {r8, r9}", *self._digits("r0", "r8"), *self._digits("r1", "r9"),
            f"{10 + number}:",
            "ldmia r11!, {r8, r9}", *self._digits("r2", "r8"), *self._digits("r3", "r9"),
        ]  # fmt: skip

    def _digits(self, weights: str, inputs: str) -> list[str]:
        """Two inputs by four channels."""
        return [
            f"smlad r7, {weights}, {inputs}, r7",
            f"sxtb16 r12, {weights}",
            f"smlad r5, r12, {inputs}, r5",
            f"and.w {weights}, r10, {weights}, lsl #4",
            f"smlad r6, {weights}, {inputs}, r6",
            f"sxtb16 {weights}, {weights}",
            f"smlad r4, {weights}, {inputs}, r4",
        ]

    def apart(self) -> list[str]:
        lines = ["sub.w r6, r6, r5, lsl #4", "asrs r6, r6, #12", "subs r7, r7, r5",
                 "sub.w r7, r7, r6, lsl #8", "asrs r7, r7, #12", "asrs r4, r4, #4",
                 "subs r5, r5, r4", "asrs r5, r5, #4"]  # fmt: skip
        if self.narrow:
            return [*lines, "ldmia lr!, {r0, r1}", "sxtah r4, r4, r0", "add.w r5, r5, r0, asr #16",
                    "sxtah r6, r6, r1", "add.w r7, r7, r1, asr #16"]  # fmt: skip
        return [*lines, "ldmia lr!, {r0-r3}", "adds r4, r4, r0", "adds r5, r5, r1",
                "adds r6, r6, r2", "adds r7, r7, r3"]  # fmt: skip

    @property
    def _channels(self) -> tuple[str, str, str, str]:
        return ("r4", "r5", "r6", "r7")


class Packed4DenseGenerator:
    """What `DenseGenerator` takes, where weights are digits and sums narrow enough."""

    def implement(self, kernel: Kernel, constants: tuple[np.ndarray, ...]) -> list[Implementation]:
        if not takes(kernel):
            return []
        layer = DenseLayer(kernel, *constants)
        if not _fits(layer):
            return []
        return [_implementation(layer, unroll) for unroll in (4, 2, 1)]


def _grouped(weights: np.ndarray) -> np.ndarray:
    """[O, K] as int64 [groups, 4, K], channels of zeros behind."""
    wide = np.pad(weights.astype(np.int64), ((0, -len(weights) % 4), (0, 0)))
    return wide.reshape(-1, 4, weights.shape[1])


def _fits(layer: DenseLayer) -> bool:
    digits = _grouped(layer.weights)
    if digits.min() < -8 or digits.max() > 7:
        return False
    parts = np.cumsum(digits * _PLACES[:, None], axis=1)
    limits = (1 << _DIGIT_BITS)[:, None]
    if (parts < -limits).any() or (parts >= limits).any():
        return False
    centre = layer.centred()[0]
    ends = digits * (127 - centre), digits * (-128 - centre)
    most = np.maximum(np.maximum(*ends).sum(axis=2), -np.minimum(*ends).sum(axis=2))
    return bool((most < 1 << _SUM_BITS).all())


def _implementation(layer: DenseLayer, unroll: int) -> Implementation:
    kernel, requantize = layer.kernel, layer.kernel.requantize
    centre, bias = layer.centred()
    code = Packed4Routine(
        "packed4",
        unroll,
        left=requantize.left_shift > 0,
        clamp=requantize.low > -128 or requantize.high < 127,
        narrow=bool((np.abs(bias) < 1 << 15).all()),
        uniform=layer.uniform,
        rows=layer.rows > 1,
    )
    words = -(-kernel.input_shape[-1] // 4)
    spreads = code.rows and kernel.output_channels > kernel.input_shape[-1]
    header = dense_header(code, layer, words, centre)
    return Implementation(
        symbol=code.symbol,
        constants=(np.concatenate([header, _stream(code, layer, words, bias)]),),
        cost=code.cost(words, kernel.output_channels, layer.rows),
        description=f"dsp dense, 4 outputs x {8 * unroll} inputs, packed4",
        assembly={code.symbol: code.text},
        scratch_bytes=8 * words,
        may_overlap_input=None if spreads else 0,
        codec="packed4",
    )


def _stream(code: Packed4Routine, layer: DenseLayer, words: int, bias: np.ndarray) -> np.ndarray:
    """int32: each four outputs' weights, biases and multipliers."""
    outputs, inputs = layer.weights.shape
    more = -outputs % 4
    digits = np.pad(_grouped(layer.weights), ((0, 0), (0, 0), (0, 4 * words - inputs)))
    halves = (digits * _PLACES[:, None]).sum(axis=1).reshape(-1, words, 4)
    # the columns' order of inputs: (0, 2), then (1, 3)
    ordered = np.ascontiguousarray(halves[..., [0, 2, 1, 3]].astype(np.int16))
    packed = ordered.reshape(len(digits), -1).view(np.int32)
    sums = np.pad(bias, (0, more)).reshape(-1, 4)
    parts = [packed, sums.astype(np.int16).view(np.int32) if code.narrow else as_words(sums)]
    if not code.uniform:
        parts.append(np.pad(layer.multipliers.astype(np.int32), (0, more)).reshape(-1, 4))
    return np.concatenate(parts, 1).reshape(-1)
