"""Which chip answers: the identification register of a target's family, and what it must hold."""

from __future__ import annotations

import fnmatch
import functools
import tomllib
from pathlib import Path
from typing import Any

from edgecompress.record_base import Record

_TABLE = Path(__file__).with_name("chip_ids.toml")


class IdRegister(Record):
    """Where chips of some targets keep their identification: the word there, masked."""

    targets: tuple[str, ...]
    address: int
    mask: int
    source: str


class ChipId(Record):
    """An identification and the targets it belongs to."""

    name: str
    value: int
    targets: tuple[str, ...]


@functools.cache
def _table() -> dict[str, Any]:
    return tomllib.loads(_TABLE.read_text(encoding="utf-8"))


def known_registers() -> list[IdRegister]:
    """Every register of the table, in its order."""
    return [IdRegister(**entry) for entry in _table()["registers"]]


def known_chips() -> list[ChipId]:
    """Every chip of the table, in its order."""
    return [ChipId(**entry) for entry in _table()["chips"]]


def id_register(*names: str) -> IdRegister | None:
    """Where the chip of a target, by any of its names, keeps its identification.

    None where nobody has looked it up.
    """
    return next((one for one in known_registers() if _matches(names, one.targets)), None)


def expected_chip(*names: str) -> ChipId | None:
    """What the chip of a target, by any of its names, identifies itself as; None: not known."""
    return next((chip for chip in known_chips() if _matches(names, chip.targets)), None)


def chip_name(value: int, like: ChipId) -> str:
    """The chip of an identification, among those that keep it the same way as `like`."""
    family = like.targets[0][:3]
    for chip in known_chips():
        if chip.value == value and chip.targets[0][:3] == family:
            return chip.name
    return f"an unknown chip ({value:#x})"


def _matches(names: tuple[str, ...], patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name.lower(), pattern) for name in names for pattern in patterns)
