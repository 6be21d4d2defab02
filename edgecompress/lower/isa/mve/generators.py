"""The vector set's generators: one line a kind of kernel."""

from __future__ import annotations

from edgecompress.lower.isa.dsp.decoded import DecodedGenerator
from edgecompress.lower.isa.interface import Generator
from edgecompress.lower.isa.mve.add import AddGenerator
from edgecompress.lower.isa.mve.conv2d import ConvolutionGenerator
from edgecompress.lower.isa.mve.depthwise import DepthwiseGenerator
from edgecompress.lower.isa.mve.pooling import PoolGenerator

GENERATORS: tuple[Generator, ...] = (
    ConvolutionGenerator(),
    DecodedGenerator(ConvolutionGenerator()),
    DepthwiseGenerator(),
    PoolGenerator(),
    AddGenerator(),
)
