"""From the generic program to the device's: kernels replaced by what its instruction set offers.

    program   TIR kernels, the same for every machine: the numpy twin and the host build run it
    device    per step the chosen `Implementation`: function, packed constants, scratch

Step names and order stay, so the two compare layer by layer.

Which of several offers a layer gets is `passes.choice`'s.

Scratch counts where the arena is fullest: there, offers with less of it are tried in turn, and
taken if the arena shrinks by more than the time lost is worth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import tvm
import tvm_ffi

from edgecompress.errors import BuildFailed
from edgecompress.lower.isa import generators_for
from edgecompress.lower.isa.interface import Implementation
from edgecompress.lower.isa.portable import with_portable
from edgecompress.lower.memory.arena import place
from edgecompress.lower.memory.lifetimes import arena_buffers, peak_live
from edgecompress.lower.memory.overlap import allowances
from edgecompress.lower.memory.regions import place_in_regions
from edgecompress.lower.passes.choice import (
    GOALS,
    RAM_WORTH,
    Goal,
    accounted,
    byte_worth,
    choose,
    cost,
    flash_bytes,
)
from edgecompress.lower.program import Argument, Buffer, Overlap, Program, Step
from edgecompress.records import OptimizeTrade
from edgecompress.target.schema import DeviceProfile

_EVEN = 1.0005  # costs so close are equal, and the smaller arena wins


def specialize(
    program: Program,
    profile: DeviceProfile,
    optimize: Goal = "balanced",
    ram_limit_bytes: int | None = None,
) -> Program:
    """The device program: cheapest implementations in, arena placed again, region by region.

    Args:
        program: lowered; offsets need not be placed.
        optimize: what flash is worth against time, see `passes.choice`.
        ram_limit_bytes: see `memory.regions.place_in_regions`.

    Raises:
        BuildFailed: two routines of one name differ (a generator's error).
        DoesNotFit: the device has several memories, and no division of the arena fits them.
    """
    chosen = choose_for(program, Offers(profile), optimize)
    return place_in_regions(install(program, chosen), profile, ram_limit_bytes)


def choose_for(
    program: Program, offers: Offers, optimize: Goal = "balanced"
) -> list[Implementation | None]:
    """What `specialize` installs: one implementation for each step, None where TIR stays."""
    given = offers.of(program)
    return relieve(program, given, choose(given, optimize), optimize)


def trades(program: Program, profile: DeviceProfile) -> tuple[OptimizeTrade, ...]:
    """What each goal would choose, by the offers' own predictions; () where nothing is offered.

    Layers on portable kernels cost the same under every goal and are left out.
    """
    offers = Offers(profile).of(program)
    if not any(offers):
        return ()
    found = []
    for goal in GOALS:
        chosen = relieve(program, offers, choose(offers, goal), goal)
        taken = [item for item in chosen if item is not None]
        found.append(
            OptimizeTrade(
                optimize=goal,
                instructions=sum(item.cost.instructions for item in taken),
                code_bytes=flash_bytes(taken),
                arena_bytes=install(program, chosen).arena_bytes,
            )
        )
    return tuple(found)


class Offers:
    """What a device's generators make of each step, remembered for the next program.

    Packed constants that are equal are one array: layers cut into stripes share their weights.
    """

    def __init__(self, profile: DeviceProfile) -> None:
        self._generators = generators_for(profile.core)
        self._knows_own_cost = profile.core.dsp and not profile.core.mve
        self._known: dict[tuple, list[Implementation]] = {}
        self._arrays: dict[tuple, np.ndarray] = {}

    def of(self, program: Program) -> list[list[Implementation]]:
        """Every offer for every step; one object's programs must share their constants."""
        return [self._step(program, step) for step in program.steps]

    def _step(self, program: Program, step: Step) -> list[Implementation]:
        if step.kernel is None:
            return []
        names = [argument.name for argument in step.arguments if argument.kind == "constant"]
        key = (step.kernel, *names)
        if key not in self._known:
            constants = tuple(program.constants[int(name)] for name in names)
            found = [
                replace(offer, constants=tuple(map(self._shared, offer.constants)))
                for generator in self._generators
                for offer in generator.implement(step.kernel, constants)
            ]
            found = accounted(found)
            if self._knows_own_cost:
                found = with_portable(found, step.kernel, constants, step.function)
            self._known[key] = found
        return self._known[key]

    def _shared(self, array: np.ndarray) -> np.ndarray:
        return self._arrays.setdefault((str(array.dtype), array.shape, array.tobytes()), array)


def relieve(
    program: Program,
    offers: Sequence[Sequence[Implementation]],
    chosen: Sequence[Implementation | None],
    optimize: Goal = "balanced",
) -> list[Implementation | None]:
    """`chosen` with less scratch at the steps that decide the arena's size, where that pays."""
    total = sum(item.cost.cycles for item in chosen if item is not None)
    flash_worth, ram_worth = byte_worth(optimize) * total, RAM_WORTH * byte_worth(optimize) * total
    best = trial = list(chosen)
    least: float | None = None
    while True:
        step, live = _peak(_assembled(program, trial))
        spent = cost(trial, flash_worth) + ram_worth * live
        if least is None or spent < least * _EVEN:
            best, least = trial, spent
        taken = trial[step] if step >= 0 else None
        if taken is None or ram_worth == 0:
            return best
        smaller = [
            given
            for given in offers[step]
            if given.scratch_bytes < taken.scratch_bytes and not given.portable
        ]
        if not smaller:
            return best
        trials = [[*trial[:step], given, *trial[step + 1 :]] for given in smaller]
        trial = min(trials, key=lambda chosen: cost(chosen, flash_worth))


def _peak(program: Program) -> tuple[int, int]:
    """The step at which most bytes are live, and how many."""
    buffers = arena_buffers(program)
    lifetimes = [(item.size_bytes, item.first_step, item.last_step) for item in buffers]
    step, live = peak_live(lifetimes, allowances(program, buffers))
    return min(step, len(program.steps) - 1), live


def install(program: Program, chosen: Sequence[Implementation | None]) -> Program:
    """`program` with the chosen implementations in place of its TIR kernels, and placed.

    Raises:
        BuildFailed: see `specialize`.
    """
    return place(_assembled(program, chosen))


def _assembled(program: Program, chosen: Sequence[Implementation | None]) -> Program:
    building = _Building(program)
    for step, implementation in zip(program.steps, chosen, strict=True):
        building.add(step, implementation)
    return building.program()


@dataclass
class _Building:
    """The device program while its steps are gathered."""

    source: Program

    def __post_init__(self) -> None:
        self.steps: list[Step] = []
        self.constants: list[np.ndarray] = []
        self.buffers: dict[str, Buffer] = dict(self.source.buffers)
        self.assembly: dict[str, str] = {}
        self.drivers: dict[str, tvm.tirx.PrimFunc] = {}

    def add(self, step: Step, implementation: Implementation | None) -> None:
        if implementation is None or implementation.portable:
            arguments = tuple(self._kept(argument) for argument in step.arguments)
            self.steps.append(replace(step, arguments=arguments))
            return
        inputs = [item for item in step.arguments[:-1] if item.kind == "buffer"]
        constants = [self._constant(array) for array in implementation.constants]
        scratch = self._scratch(step, implementation.scratch_bytes)
        self.steps.append(
            replace(
                step,
                function=implementation.symbol,
                arguments=(*inputs, *constants, *scratch, step.arguments[-1]),
                overlaps=_overlaps(implementation),
                implementation=implementation.description,
                codec=implementation.codec,
                codec_saved_bytes=implementation.saved_bytes,
                codec_instructions=implementation.spent_instructions,
            )
        )
        self._take_code(implementation)

    def program(self) -> Program:
        wanted = {step.function for step in self.steps}
        functions = {name: function for name, function in self.drivers.items() if name in wanted}
        for variable, function in self.source.functions.functions.items():
            if variable.name_hint in wanted and variable.name_hint not in self.assembly:
                functions.setdefault(variable.name_hint, function)
        return replace(
            self.source,
            steps=tuple(self.steps),
            constants=tuple(self.constants),
            buffers=self.buffers,
            functions=tvm.IRModule(functions),
            assembly=tuple(sorted(self.assembly.items())),
        )

    def _kept(self, argument: Argument) -> Argument:
        if argument.kind != "constant":
            return argument
        return self._constant(self.source.constants[int(argument.name)])

    def _constant(self, array: np.ndarray) -> Argument:
        self.constants.append(array)
        return Argument("constant", str(len(self.constants) - 1))

    def _scratch(self, step: Step, size_bytes: int) -> tuple[Argument, ...]:
        if size_bytes == 0:
            return ()
        name = f"{step.name}.scratch"
        index = len(self.steps)
        self.buffers[name] = Buffer(name, (size_bytes,), "int8", size_bytes, index, index)
        return (Argument("scratch", name),)

    def _take_code(self, implementation: Implementation) -> None:
        texts: Mapping[str, str] = implementation.assembly
        for symbol, text in texts.items():
            if self.assembly.setdefault(symbol, text) != text:
                raise BuildFailed(f"Two different routines are named {symbol}.")
        driver = implementation.driver
        if driver is not None:
            first = self.drivers.setdefault(implementation.symbol, driver)
            if first is not driver and not tvm_ffi.structural_equal(first, driver):
                raise BuildFailed(f"Two different drivers are named {implementation.symbol}.")


def _overlaps(implementation: Implementation) -> tuple[Overlap, ...]:
    """What the code permits; a distance above zero would still be exactly in place at zero."""
    found = [Overlap(argument) for argument in implementation.in_place_arguments]
    if implementation.may_overlap_input is not None:
        found.append(Overlap(0, min(implementation.may_overlap_input, 0)))
    return tuple(found)
