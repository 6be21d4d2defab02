"""What the firmware says of itself (`edge info`), every field checked before anyone sees it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgecompress.device.lines import shown
from edgecompress.errors import ProtocolError

ABI_VERSION = 2
REGIONS_LIMIT = 64

_INFO = re.compile(r"e2-([a-z_]{1,32})-(.{0,512})")
_REGION = re.compile(r"([A-Za-z_]\w{0,31}) (\d{1,20}) (\d{1,20})", re.ASCII)

_TEXTS = {
    "model": r"[0-9a-f]{64}",
    "target": r"[A-Za-z0-9][\w .+-]{0,63}",
    "clock_source": r"configured|registers|host",
    "settings": r"(?:\w+=[\w.+-]+(?: |$))*",
    "device_id": r"(?:[0-9a-f]{2}){0,12}",
}
_ADDRESS = range(1 << 64)
_SIZE = range(1 << 32)
_NUMBERS = {
    "abi": _SIZE,
    "clock_hz": _SIZE,
    "tick_hz": range(1, 1 << 32),
    "input_bytes": _SIZE,
    "output_bytes": _SIZE,
    "arena_bytes": _SIZE,
    "steps": range(1 << 20),
}


@dataclass(frozen=True)
class MemoryRange:
    """A part of the device's address space."""

    name: str
    address: int
    size_bytes: int


@dataclass(frozen=True)
class Identity:
    """What the firmware says it is.

    Attributes:
        model: the model's sha256, 64 hexadecimal digits.
        clock_hz: the core's clock, 0 where unknown; `clock_source` says how it is known:
            "registers", "configured" or "host".
        tick_hz: what one tick of `run` and `step` is worth.
        settings: what else changes speed, "icache=on wait_states=7"; "" where unknown.
        device_id: the chip's unique number in hexadecimal, "" where it has none.
        regions: "arena" (each of its parts), "stack" (0 and 0 where unknown), then the memories of
            the profile the image was linked for.
    """

    abi: int
    model: str
    target: str
    device_id: str
    settings: str
    clock_source: str
    clock_hz: int
    tick_hz: int
    input_bytes: int
    output_bytes: int
    arena_bytes: int
    steps: int
    regions: tuple[MemoryRange, ...]


def parse_identity(name: str, lines: list[str]) -> Identity:
    """The lines of `edge info`; fields this version does not know are passed over.

    Args:
        name: the device, for messages.

    Raises:
        ProtocolError: another ABI, a field missing, said twice, or outside its range.
    """
    fields: dict[str, str] = {}
    regions: list[MemoryRange] = []
    for line in lines:
        match = _INFO.fullmatch(line)
        if match is None or match[1] in fields:
            raise ProtocolError(
                f"{name} answered 'edge info' with '{shown(line)}', which is outside the protocol."
            )
        if match[1] == "region":
            regions.append(_region(name, match[2], len(regions)))
        else:
            fields[match[1]] = match[2]
    if fields.get("abi") != str(ABI_VERSION):
        raise ProtocolError(
            f"{name} speaks firmware ABI {shown(fields.get('abi', ''))}, this tool {ABI_VERSION}.",
            next_step="Compile and flash the image again.",
        )
    values: dict[str, Any] = {"regions": tuple(regions)}
    for key, pattern in _TEXTS.items():
        values[key] = _field(name, fields, key, lambda text, form=pattern: _matching(text, form))
    for key, allowed in _NUMBERS.items():
        values[key] = _field(name, fields, key, lambda text, limits=allowed: _within(text, limits))
    return Identity(**values)


def _field(
    name: str, fields: Mapping[str, str], key: str, parse: Callable[[str], Any]
) -> str | int:
    try:
        return parse(fields[key])
    except KeyError:
        raise ProtocolError(f"{name}: edge info lacks '{key}'.") from None
    except ValueError:
        raise ProtocolError(
            f"{name}: edge info gives {key} as '{shown(fields[key])}', which it cannot be."
        ) from None


def _matching(text: str, form: str) -> str:
    if re.fullmatch(form, text, re.ASCII) is None:
        raise ValueError
    return text


def _within(text: str, allowed: range) -> int:
    value = number(text)
    if value not in allowed:
        raise ValueError
    return value


def _region(name: str, text: str, count: int) -> MemoryRange:
    match = _REGION.fullmatch(text)
    if match is None or count >= REGIONS_LIMIT:
        raise ProtocolError(f"{name}: edge info gives region '{shown(text)}', which cannot be.")
    address, size_bytes = int(match[2]), int(match[3])
    if address not in _ADDRESS or size_bytes not in _SIZE:
        raise ProtocolError(f"{name}: edge info gives region '{shown(text)}', which cannot be.")
    return MemoryRange(match[1], address, size_bytes)


def number(text: str) -> int:
    """Decimal digits only, at most 20: int() would also take '+1', '1_0' and endless digits.

    Raises:
        ValueError: anything else.
    """
    if re.fullmatch(r"\d{1,20}", text, re.ASCII) is None:
        raise ValueError
    return int(text)
