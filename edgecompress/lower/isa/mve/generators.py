"""The vector set's generators: one line a kind of kernel."""

from __future__ import annotations

from edgecompress.lower.isa.interface import Generator

GENERATORS: tuple[Generator, ...] = ()
