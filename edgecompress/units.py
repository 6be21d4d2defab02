"""Bytes, counts and microseconds, with their one parser and one formatter (1 KiB = 1024 bytes)."""

from __future__ import annotations

import re
from decimal import Decimal

from edgecompress.errors import BadInput

_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([kmg]?)(i?b?)\s*$", re.IGNORECASE)
_FACTOR = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def parse_bytes(text: str | int) -> int:
    """Bytes from "512K", "512KiB", "1.5M" or a plain number; K is always 1024.

    Raises:
        BadInput: not a size, or not a whole number of at least 0.
    """
    if isinstance(text, int) and not isinstance(text, bool) and text >= 0:
        return text
    match = _SIZE.match(text) if isinstance(text, str) else None
    if match is None:
        raise BadInput(f"'{text}' is not a size.", next_step="Write 512K, 1M or a byte count.")
    return int(Decimal(match[1]) * _FACTOR[match[2].lower()])


def format_bytes(count: int | float) -> str:
    """ "148.5 KiB"; below 1 KiB "812 B"."""
    size = abs(count)
    if size < 1024:
        return f"{count:.0f} B"
    if size < 1024**2:
        return f"{count / 1024:.1f} KiB"
    return f"{count / 1024**2:.2f} MiB"


def format_count(count: int | float) -> str:
    """ "12.50 M", "3.1 k", "870": MACs and instructions, decimal prefixes."""
    size = abs(count)
    if size < 1e4:
        return f"{count:.0f}"
    if size < 1e6:
        return f"{count / 1e3:.1f} k"
    if size < 1e9:
        return f"{count / 1e6:.2f} M"
    return f"{count / 1e9:.2f} G"


def format_us(microseconds: float) -> str:
    """ "870 us", "41.2 ms", "1.30 s"."""
    if microseconds < 1e3:
        return f"{microseconds:.0f} us"
    if microseconds < 1e6:
        return f"{microseconds / 1e3:.1f} ms"
    return f"{microseconds / 1e6:.2f} s"
