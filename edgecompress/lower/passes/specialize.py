"""From the generic program to the device's: kernels replaced by what its instruction set offers.

    program   TIR kernels, the same for every machine: the numpy twin and the host build run it
    device    per step the chosen `Implementation`: function, packed constants, scratch

Step names and order stay, so the two compare layer by layer.

Routines are shared between layers, so the choice is joint: every layer first takes its fastest
offer, then whole routines are dropped where doing without them costs less than their bytes are
worth. Example: five layers want tiles of 2 x 4 pixels and one, for 0.01 % of the program's cycles,
2 x 3; that one takes 2 x 4 as well and 600 bytes of flash are saved.

A codec (`lower.codec`) is one more offer of a layer: fewer bytes of constants, more cycles, at the
same rate. Example: balanced, four bits add 15 % to a layer that takes 20 % of the program's cycles,
3 % of the program; the 18 KiB they save are worth 18 %.

Scratch counts where the arena is fullest: there, offers with less of it are tried in turn, and
taken if the arena shrinks by more than the time lost is worth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import tvm
import tvm_ffi

from edgecompress.errors import BuildFailed
from edgecompress.lower.isa import generators_for
from edgecompress.lower.isa.interface import Implementation
from edgecompress.lower.isa.portable import portable_offer
from edgecompress.lower.memory.arena import place
from edgecompress.lower.memory.lifetimes import arena_buffers, peak_live
from edgecompress.lower.memory.overlap import allowances
from edgecompress.lower.memory.regions import place_in_regions
from edgecompress.lower.program import Argument, Buffer, Overlap, Program, Step
from edgecompress.records import Optimize, OptimizeTrade
from edgecompress.target.schema import DeviceProfile

# What a byte of flash is worth, as a share of the program's cycles. Balanced: a routine of 500
# bytes stays when it saves half a percent. Size: it stays when it saves a third of them.
_BYTE_WORTH: dict[Optimize, float] = {"speed": 0.0, "balanced": 1e-5, "size": 7e-4}
# The same for RAM, of which microcontrollers have a quarter: balanced, 1 KiB is worth 4 %.
_RAM_WORTH: dict[Optimize, float] = {name: 4 * worth for name, worth in _BYTE_WORTH.items()}
_EVEN = 1.0005  # costs so close are equal, and the smaller arena wins

_Price = Callable[[Implementation], tuple[float, int, int]]


def specialize(
    program: Program,
    profile: DeviceProfile,
    optimize: Optimize = "balanced",
    ram_limit_bytes: int | None = None,
) -> Program:
    """The device program: cheapest implementations in, arena placed again, region by region.

    Args:
        program: lowered; offsets need not be placed.
        optimize: what flash is worth against time.
        ram_limit_bytes: see `memory.regions.place_in_regions`.

    Raises:
        BuildFailed: two routines of one name differ (a generator's error).
        DoesNotFit: the device has several memories, and no division of the arena fits them.
    """
    chosen = choose_for(program, Offers(profile), optimize)
    return place_in_regions(install(program, chosen), profile, ram_limit_bytes)


def choose_for(
    program: Program, offers: Offers, optimize: Optimize = "balanced"
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
    for goal in _BYTE_WORTH:
        chosen = relieve(program, offers, choose(offers, goal), goal)
        taken = [item for item in chosen if item is not None]
        found.append(
            OptimizeTrade(
                optimize=goal,
                instructions=sum(item.cost.instructions for item in taken),
                code_bytes=_flash(taken),
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
            own = portable_offer(step.kernel, constants, step.function) if found else None
            found = _accounted(found)
            self._known[key] = [*found, own] if self._knows_own_cost and own else found
        return self._known[key]

    def _shared(self, array: np.ndarray) -> np.ndarray:
        return self._arrays.setdefault((str(array.dtype), array.shape, array.tobytes()), array)


def choose(
    offers: Sequence[Sequence[Implementation]], optimize: Optimize = "balanced"
) -> list[Implementation | None]:
    """One implementation for each step, or None where nothing is offered."""
    fastest = [min(given, key=_price(0)) for given in offers if given]
    worth = _BYTE_WORTH[optimize] * sum(item.cost.cycles for item in fastest)
    price = _price(worth)
    best = [min(given, key=price) if given else None for given in offers]
    best_cost = _cost(best, worth)
    improved = True
    while improved:
        improved = False
        for symbol in sorted(_routines(best)):
            trial = [
                _without(given, symbol, kept, price)
                for given, kept in zip(offers, best, strict=True)
            ]
            cost = _cost(trial, worth)
            if cost < best_cost:
                best, best_cost, improved = trial, cost, True
        # one layer alone rarely gains by a larger routine that many could share
        for symbol in _shareable(offers):
            trial = [
                _with(given, symbol, kept, price) for given, kept in zip(offers, best, strict=True)
            ]
            cost = _cost(trial, worth)
            if cost < best_cost:
                best, best_cost, improved = trial, cost, True
    return best


def relieve(
    program: Program,
    offers: Sequence[Sequence[Implementation]],
    chosen: Sequence[Implementation | None],
    optimize: Optimize = "balanced",
) -> list[Implementation | None]:
    """`chosen` with less scratch at the steps that decide the arena's size, where that pays."""
    total = sum(item.cost.cycles for item in chosen if item is not None)
    flash_worth, ram_worth = _BYTE_WORTH[optimize] * total, _RAM_WORTH[optimize] * total
    best = trial = list(chosen)
    best_cost: float | None = None
    while True:
        step, live = _peak(_assembled(program, trial))
        cost = _cost(trial, flash_worth) + ram_worth * live
        if best_cost is None or cost < best_cost * _EVEN:
            best, best_cost = trial, cost
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
        trial = [*trial[:step], min(smaller, key=_price(flash_worth)), *trial[step + 1 :]]


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


def _price(worth: float) -> _Price:
    """Cycles with constants at so many cycles a byte, then instructions, then scratch."""

    def price(item: Implementation) -> tuple[float, int, int]:
        cost = item.cost
        return cost.cycles + worth * item.constant_bytes, cost.instructions, item.scratch_bytes

    return price


def _accounted(offers: list[Implementation]) -> list[Implementation]:
    """With what codecs save and take, beside the fastest offer that has none."""
    plain = min((offer for offer in offers if not offer.codec), key=_price(0), default=None)
    if plain is None:
        return offers
    return [
        replace(
            offer,
            saved_bytes=plain.constant_bytes - offer.constant_bytes,
            spent_instructions=offer.cost.instructions - plain.cost.instructions,
        )
        if offer.codec
        else offer
        for offer in offers
    ]


def _without(
    given: Sequence[Implementation], symbol: str, kept: Implementation | None, price: _Price
) -> Implementation | None:
    """The cheapest offer that does not use a routine; the one kept where every offer uses it."""
    if kept is None or symbol not in _code(kept):
        return kept
    rest = [offer for offer in given if symbol not in _code(offer)]
    return min(rest, key=price) if rest else kept


def _with(
    given: Sequence[Implementation], symbol: str, kept: Implementation | None, price: _Price
) -> Implementation | None:
    """The cheapest offer that uses a routine; the one kept where no offer does."""
    using = [offer for offer in given if symbol in _code(offer)]
    return min(using, key=price) if using else kept


def _shareable(offers: Sequence[Sequence[Implementation]]) -> list[str]:
    """Routines that several layers could use, most layers first."""
    layers = Counter(
        symbol for given in offers for symbol in set().union(*(_code(item) for item in given))
    )
    return sorted((name for name in layers if layers[name] > 1), key=lambda n: (-layers[n], n))


def _code(implementation: Implementation) -> set[str]:
    driver = {implementation.symbol} if implementation.driver is not None else set()
    return driver | set(implementation.assembly)


def _routines(chosen: Sequence[Implementation | None]) -> set[str]:
    return set().union(*(_code(item) for item in chosen if item is not None))


def _cost(chosen: Sequence[Implementation | None], worth: float) -> float:
    """Cycles, and what all routines' bytes together are worth in cycles."""
    taken = [item for item in chosen if item is not None]
    return sum(item.cost.cycles for item in taken) + worth * _flash(taken)


def _flash(taken: Sequence[Implementation]) -> int:
    """Bytes of code and of packed constants, each routine and each array once; an estimate."""
    texts: dict[str, str] = {}
    own_bytes: dict[str, int] = {}
    for item in taken:
        texts.update(item.assembly)
        own_bytes[item.symbol] = max(own_bytes.get(item.symbol, 0), item.cost.code_bytes)
    constants = {id(array): array.nbytes for item in taken for array in item.constants}
    packed = sum(constants.values())
    return sum(map(estimated_bytes, texts.values())) + sum(own_bytes.values()) + packed


@cache
def estimated_bytes(assembly: str) -> int:
    """Size of a routine's text before it is assembled: instructions of 3.5 bytes on average."""
    lines = (line.strip() for line in assembly.splitlines())
    count = sum(1 for line in lines if line and not line.startswith(".") and line[-1] != ":")
    return count * 7 // 2


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
