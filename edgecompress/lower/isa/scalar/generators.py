"""Encoded weights on cores without packed arithmetic (Armv6-M, Armv7-M, RV32): TIR as it is.

The portable kernels compute a tile of output channels for each input they load. A tile's weights of
one input lie in one word of codes, four or two bits each, and each lane takes its own out:

    packed4      code << (28 - 4 * lane), then arithmetically >> 28        SBFX, or two shifts
    lut16, lut4  table[(code >> bits * lane) & (2^bits - 1)]               a table for the layer

Nothing is decoded beforehand, so no scratch is needed. Sparse weights have no such code: where one
of them lies depends on all before it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecompress.lower.codec import Lut, Packed4
from edgecompress.lower.isa.interface import Cost, Generator, Implementation
from edgecompress.lower.isa.portable import portable_offer
from edgecompress.lower.isa.rv32.generators import WideTileGenerator
from edgecompress.lower.kernels.conv2d import Conv2D
from edgecompress.lower.kernels.conv2d_add import Conv2DAdd
from edgecompress.lower.kernels.dense import Dense
from edgecompress.lower.kernels.loops import tile_output_channels
from edgecompress.lower.kernels.primfunc import build_function
from edgecompress.lower.program import Overlap

if TYPE_CHECKING:
    from edgecompress.lower.program import Kernel

_CODECS: tuple[Packed4 | Lut, ...] = (Packed4(), Lut(4), Lut(16))


@dataclass(frozen=True)
class _Codes:
    """Stands for the weights [O, ...] in a kernel's `compute`, reading one lane of a word."""

    codes: Any
    table: Any
    bits: int
    lanes: int

    def __getitem__(self, at: tuple[Any, ...]) -> Any:
        channel, *rest = at
        word = self.codes[(channel // self.lanes, *rest)].astype("int32")
        lane = channel % self.lanes
        if self.table is None:
            return (word << (32 - self.bits - self.bits * lane)) >> (32 - self.bits)
        return self.table[(word >> (self.bits * lane)) & ((1 << self.bits) - 1)]


@dataclass(frozen=True)
class _Encoded:
    """A kernel whose weights are codes; its arguments are the kernel's, with a table behind them.

    Arguments: the activations, codes [O / lanes, ...], the table int8 (not for packed4), the rest.
    """

    op: str
    macs: int
    kernel: Conv2D | Conv2DAdd | Dense
    overlaps: tuple[Overlap, ...]
    activations: int
    bits: int
    lanes: int
    has_table: bool

    def compute(self, *arguments: Any) -> Any:
        first, rest = self.activations, arguments[self.activations + 1 :]
        table, rest = (rest[0], rest[1:]) if self.has_table else (None, rest)
        weights = _Codes(arguments[first], table, self.bits, self.lanes)
        return self.kernel.compute(*arguments[:first], weights, *rest)

    def schedule(self, schedule: Any, function_name: str) -> None:
        tile_output_channels(schedule, function_name, self.lanes)


@dataclass(frozen=True)
class EncodedGenerator:
    """`Conv2D`, `Conv2DAdd` and `Dense` with a whole number of tiles, weights of few bits.

    Attributes:
        widths: tiles to try, widest first.
        extra: cycles a multiplication of packed4, lut4 and lut16 take beyond plain weights.
        plain: generators for plain weights on this core, before the kernel's own TIR.
    """

    widths: tuple[int, ...]
    extra: tuple[float, float, float]
    plain: tuple[Generator, ...] = ()

    def implement(self, kernel: Kernel, constants: tuple[np.ndarray, ...]) -> list[Implementation]:
        if not isinstance(kernel, Conv2D | Conv2DAdd | Dense):
            return []
        codecs = [codec for codec in _CODECS if codec.takes(constants[0])]
        conv = kernel.conv if isinstance(kernel, Conv2DAdd) else kernel
        groups = 1 if isinstance(conv, Dense) else conv.groups
        lanes = next((w for w in self.widths if conv.output_channels // groups % w == 0), None)
        if not codecs or lanes is None:
            return []
        better = [offer for one in self.plain for offer in one.implement(kernel, constants)]
        own = portable_offer(kernel, constants, "")
        assert own is not None  # it knows these kinds
        base = min(better, key=lambda offer: offer.cost.cycles) if better else own
        offers = [self._offer(kernel, constants, codec, lanes, base.cost) for codec in codecs]
        return offers if better else [own, *offers]

    def _offer(
        self,
        kernel: Conv2D | Conv2DAdd | Dense,
        constants: tuple[np.ndarray, ...],
        codec: Packed4 | Lut,
        lanes: int,
        plain: Cost,
    ) -> Implementation:
        more = round(self.extra[_CODECS.index(codec)] * kernel.macs)
        cost = Cost(plain.instructions + more, plain.cycles + more, plain.code_bytes)
        return replace(_implementation(kernel, constants, codec, lanes), cost=cost)


def _implementation(
    kernel: Conv2D | Conv2DAdd | Dense,
    constants: tuple[np.ndarray, ...],
    codec: Packed4 | Lut,
    lanes: int,
) -> Implementation:
    weights, *rest = constants
    table = codec.table(weights) if isinstance(codec, Lut) else None
    bits = codec.bits if isinstance(codec, Lut) else 4
    codes = _codes(weights, table, bits, lanes)
    packed = (codes, *rest) if table is None else (codes, table, *rest)
    activations = _activations(kernel)
    overlaps = () if isinstance(kernel, Dense) else kernel.overlaps
    encoded = _Encoded(
        kernel.op, kernel.macs, kernel, overlaps, len(activations), bits, lanes, table is not None
    )
    arguments = [(shape, "int8") for shape in activations]
    arguments += [(array.shape, str(array.dtype)) for array in packed]
    key = repr((kernel, arguments, codec.name))
    symbol = f"{codec.name}_{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    first = next((item for item in overlaps if item.argument == 0), None)
    return Implementation(
        symbol=symbol,
        constants=packed,
        cost=Cost(0, 0, 0),
        description="",  # the portable kernel still
        driver=build_function(encoded, arguments, symbol),
        may_overlap_input=None if first is None else first.distance_bytes,
        in_place_arguments=tuple(item.argument for item in overlaps if item.argument > 0),
        codec=codec.name,
    )


def _codes(weights: np.ndarray, table: np.ndarray | None, bits: int, lanes: int) -> np.ndarray:
    """[O / lanes, ...] words, unsigned of 8, 16 or 32 bits, the first channel lowest."""
    values = weights.astype(np.int64) & 15 if table is None else np.searchsorted(table, weights)
    tiles = values.reshape(-1, lanes, *weights.shape[1:])
    shifts = bits * np.arange(lanes).reshape(1, lanes, *[1] * (weights.ndim - 1))
    words = np.bitwise_or.reduce(tiles << shifts, axis=1)
    return words.astype(f"uint{max(8, bits * lanes)}")


def _activations(kernel: Conv2D | Conv2DAdd | Dense) -> list[tuple[int, ...]]:
    if isinstance(kernel, Dense):
        return [kernel.input_shape]
    if isinstance(kernel, Conv2DAdd):
        return [kernel.conv.window.input_shape, kernel.conv.output_shape]
    return [kernel.window.input_shape]


# Counted on the virtual boards, as a compromise between 3x3 convolutions and the others. Armv6-M
# has to add up an address for every signed byte, so one word of four weights is the faster way.
ENCODED: dict[str, tuple[Generator, ...]] = {
    "armv6-m": (EncodedGenerator((4,), (-0.8, 1.5, 1.6)),),
    "armv7-m": (EncodedGenerator((4,), (0.5, 1.7, 1.9)),),
    "rv32imc": (EncodedGenerator((8, 4), (0.6, 5.0, 2.8), (WideTileGenerator(),)),),
}
