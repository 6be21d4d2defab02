"""Filling header offsets and routine names into assembler lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_REGISTER_LISTS = ("push", "pop", "vpush", "vpop", "ldm", "stm")


def filled(lines: Iterable[str], names: Mapping[str, object]) -> list[str]:
    """Each `{name}` replaced by its value; register lists are left alone."""
    return [line if line.startswith(_REGISTER_LISTS) else line.format(**names) for line in lines]
