"""The DSP set's generators: one line a kind of kernel."""

from __future__ import annotations

from edgecompress.lower.isa.dsp.dense import DenseGenerator
from edgecompress.lower.isa.interface import Generator

GENERATORS: tuple[Generator, ...] = (DenseGenerator(),)
