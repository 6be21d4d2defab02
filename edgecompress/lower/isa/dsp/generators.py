"""The DSP set's generators: one line a kind of kernel."""

from __future__ import annotations

from edgecompress.lower.isa.dsp.add import AddGenerator
from edgecompress.lower.isa.dsp.concat import ConcatGenerator
from edgecompress.lower.isa.dsp.conv2d import Conv2DGenerator
from edgecompress.lower.isa.dsp.decoded import DecodedGenerator
from edgecompress.lower.isa.dsp.dense import DenseGenerator
from edgecompress.lower.isa.dsp.depthwise import DepthwiseGenerator
from edgecompress.lower.isa.dsp.dilated import DilatedDepthwiseGenerator
from edgecompress.lower.isa.dsp.first_layer import FirstLayerGenerator
from edgecompress.lower.isa.dsp.lookup import LookupGenerator
from edgecompress.lower.isa.dsp.narrow import NarrowGenerator
from edgecompress.lower.isa.dsp.other_depthwise import OtherDepthwiseGenerator
from edgecompress.lower.isa.dsp.packed4_dense import Packed4DenseGenerator
from edgecompress.lower.isa.dsp.pointwise import PointwiseGenerator
from edgecompress.lower.isa.dsp.pooling import PoolGenerator
from edgecompress.lower.isa.interface import Generator, Remembered

_CONV2D, _POINTWISE, _DENSE = map(
    Remembered, (Conv2DGenerator(), PointwiseGenerator(), DenseGenerator())
)

GENERATORS: tuple[Generator, ...] = (
    _CONV2D,
    FirstLayerGenerator(),
    _POINTWISE,
    NarrowGenerator(),
    _DENSE,
    Packed4DenseGenerator(),
    DecodedGenerator(_CONV2D, _POINTWISE, _DENSE),
    OtherDepthwiseGenerator(DepthwiseGenerator()),
    DilatedDepthwiseGenerator(),
    AddGenerator(),
    ConcatGenerator(),
    PoolGenerator(),
    LookupGenerator(),
)
