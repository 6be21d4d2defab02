"""The table of known USB serial adapters, and which targets are likely behind one."""

from __future__ import annotations

import fnmatch
import functools
import tomllib
from pathlib import Path

from pydantic import Field

from edgecompress.record_base import Record

_TABLE = Path(__file__).with_name("adapters.toml")


class Adapter(Record):
    """An entry of adapters.toml, which explains the fields."""

    name: str
    vid: int = Field(ge=0, le=0xFFFF)
    pid: tuple[int, ...] = ()
    probe: bool = False
    likely_targets: tuple[str, ...] = ()
    source: str


@functools.cache
def known_adapters() -> tuple[Adapter, ...]:
    """The table, in its order."""
    table = tomllib.loads(_TABLE.read_text(encoding="utf-8"))
    return tuple(Adapter.model_validate(entry) for entry in table["adapters"])


def find_adapter(vid: int | None, pid: int | None) -> Adapter | None:
    """The adapter of these USB numbers; None where it is unknown or not on USB."""
    for adapter in known_adapters():
        if adapter.vid == vid and (not adapter.pid or pid in adapter.pid):
            return adapter
    return None


def matching_targets(patterns: tuple[str, ...], names: list[str]) -> tuple[str, ...]:
    """The names the patterns stand for; a pattern of more than four, or of none, stays one.

    "stm32*" is then read as "some STM32".
    """
    found: list[str] = []
    for pattern in patterns:
        matches = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
        found += matches if 0 < len(matches) <= 4 else [pattern]
    return tuple(dict.fromkeys(found))
