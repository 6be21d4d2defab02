"""Microkernel generators by instruction set; `generators_for` says which a core has."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgecompress.lower.isa.interface import Generator
    from edgecompress.target.schema import Core


def generators_for(core: Core) -> tuple[Generator, ...]:
    """The generators whose code runs on this core; none for a core without a set of its own.

    A core with MVE also runs the DSP set, which takes what the vector kernels refuse. Those without
    packed arithmetic have the portable kernels on encoded weights.
    """
    generators: tuple[Generator, ...] = ()
    if core.mve:
        generators += _offered("mve")
    if core.dsp and core.isa in ("armv7e-m", "armv8-m.main", "armv8.1-m.main"):
        generators += _offered("dsp")
    if core.isa == "rv32imc":
        generators += _offered("rv32")
    if not core.dsp:
        generators += _encoded(core)
    return generators


def _encoded(core: Core) -> tuple[Generator, ...]:
    """Portable kernels on encoded weights, for microcontrollers' cores without packed sums."""
    if core.isa not in ("armv6-m", "armv7-m", "rv32imc"):
        return ()
    from edgecompress.lower.isa.scalar.generators import ENCODED

    return ENCODED[core.isa]


def _offered(instruction_set: str) -> tuple[Generator, ...]:
    """`GENERATORS` of a set's package, read only when a core asks for it: they import tvm."""
    if instruction_set == "mve":
        from edgecompress.lower.isa.mve.generators import GENERATORS as offered
    elif instruction_set == "rv32":
        from edgecompress.lower.isa.rv32.generators import GENERATORS as offered
    else:
        from edgecompress.lower.isa.dsp.generators import GENERATORS as offered
    return offered
