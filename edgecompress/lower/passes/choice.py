"""Which of a device's implementations each layer gets: bytes of flash against cycles.

Routines are shared between layers, so the choice is joint: every layer first takes its fastest
offer, then whole routines are dropped where doing without them costs less than their bytes are
worth. Example: five layers want tiles of 2 x 4 pixels and one, for 0.01 % of the program's cycles,
2 x 3; that one takes 2 x 4 as well and 600 bytes of flash are saved.

A codec (`lower.codec`) is one more offer of a layer: fewer bytes of constants, more cycles, at the
same rate. Example: balanced, four bits add 15 % to a layer that takes 20 % of the program's cycles,
3 % of the program; the 18 KiB they save are worth 18 %.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

from edgecompress.lower.isa.interface import Implementation
from edgecompress.records import Optimize

Goal = Optimize | float
"""What the user asked for, or outright what a byte is worth."""

GOALS: tuple[Optimize, ...] = ("speed", "balanced", "size")

# What a byte of flash is worth, as a share of the program's cycles. Balanced: a routine of 500
# bytes stays when it saves half a percent. Size: it stays when it saves a third of them.
_BYTE_WORTH: dict[Optimize, float] = {"speed": 0.0, "balanced": 1e-5, "size": 7e-4}
# A byte of RAM, of which microcontrollers have a quarter: balanced, 1 KiB is worth 4 %.
RAM_WORTH = 4

_FIRST_SHARES = (1.0, 0.05, 0.0)

_Price = Callable[[Implementation], tuple[float, int, int]]


def byte_worth(goal: Goal) -> float:
    """Of a byte of flash, as a share of the program's cycles."""
    return goal if isinstance(goal, float) else _BYTE_WORTH[goal]


def choose(
    offers: Sequence[Sequence[Implementation]], optimize: Goal = "balanced"
) -> list[Implementation | None]:
    """One implementation for each step, or None where nothing is offered.

    A search from several first choices: by constants' full worth, by less of it and by time alone.
    """
    fastest = [min(given, key=price_at(0)) for given in offers if given]
    worth = byte_worth(optimize) * sum(item.cost.cycles for item in fastest)
    found = [_improved(offers, worth, worth * share) for share in _FIRST_SHARES]
    return min(found, key=lambda chosen: cost(chosen, worth))


def _improved(
    offers: Sequence[Sequence[Implementation]], worth: float, first_worth: float
) -> list[Implementation | None]:
    """From the best at `first_worth` to where no routine can be dropped or shared at a gain."""
    best = [min(given, key=price_at(first_worth)) if given else None for given in offers]
    least = cost(best, worth)
    cheapest_first = [sorted(given, key=price_at(worth)) for given in offers]
    improved = True
    while improved:
        improved = False
        for symbol in sorted(_routines(best)):
            trial = [
                _without(given, symbol, kept)
                for given, kept in zip(cheapest_first, best, strict=True)
            ]
            spent = cost(trial, worth)
            if spent < least:
                best, least, improved = trial, spent, True
        # one layer alone rarely gains by a larger routine that many could share
        for symbol in _shareable(offers):
            trial = [
                _with(given, symbol, kept) for given, kept in zip(cheapest_first, best, strict=True)
            ]
            spent = cost(trial, worth)
            if spent < least:
                best, least, improved = trial, spent, True
    return best


def price_at(worth: float) -> _Price:
    """Cycles with constants at so many cycles a byte, then instructions, then scratch."""

    def price(item: Implementation) -> tuple[float, int, int]:
        cycles = item.cost.cycles + worth * item.constant_bytes
        return cycles, item.cost.instructions, item.scratch_bytes

    return price


def accounted(offers: list[Implementation]) -> list[Implementation]:
    """With what codecs save and take, beside the fastest offer that has none."""
    plain = min((offer for offer in offers if not offer.codec), key=price_at(0), default=None)
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
    cheapest_first: Sequence[Implementation], symbol: str, kept: Implementation | None
) -> Implementation | None:
    """The cheapest offer that does not use a routine; the one kept where every offer uses it."""
    if kept is None or symbol not in kept.routines:
        return kept
    return next((offer for offer in cheapest_first if symbol not in offer.routines), kept)


def _with(
    cheapest_first: Sequence[Implementation], symbol: str, kept: Implementation | None
) -> Implementation | None:
    """The cheapest offer that uses a routine; the one kept where no offer does."""
    return next((offer for offer in cheapest_first if symbol in offer.routines), kept)


def _shareable(offers: Sequence[Sequence[Implementation]]) -> list[str]:
    """Routines that several layers could use, most layers first."""
    layers = Counter(
        symbol for given in offers for symbol in set().union(*(item.routines for item in given))
    )
    return sorted((name for name in layers if layers[name] > 1), key=lambda n: (-layers[n], n))


def _routines(chosen: Sequence[Implementation | None]) -> set[str]:
    return set().union(*(item.routines for item in chosen if item is not None))


def cost(chosen: Sequence[Implementation | None], worth: float) -> float:
    """Cycles, and what all routines' bytes together are worth in cycles."""
    taken = [item for item in chosen if item is not None]
    return sum(item.cost.cycles for item in taken) + worth * flash_bytes(taken)


def flash_bytes(taken: Sequence[Implementation]) -> int:
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
