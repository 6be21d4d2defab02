"""Compares a profile with what else is known: pyOCD's memory maps, and what the boards demand.

Everything is offline. pyOCD's map is not the truth either: it may cover a whole series or be
copied from a neighbour; where the profile knows better, `flashing.map_differs` says why.
"""

from __future__ import annotations

from typing import Literal

from edgecompress.records import Record
from edgecompress.target.pyocd_chips import Memory, builtin_memories, merged, pyocd_missing
from edgecompress.target.schema import DeviceProfile, Region
from edgecompress.units import format_bytes

PAGE_BYTES = 4096

State = Literal["agrees", "differs", "explained", "not compared"]


class Agreement(Record):
    """What a comparison came to; `detail` says why, or what differs."""

    state: State
    detail: str = ""


def agreement(profile: DeviceProfile) -> Agreement:
    """The profile's memories against pyOCD's of the same chip.

    "explained": they differ and the profile says why. "not compared": the reason is in `detail`.
    """
    flashing = profile.flashing
    if profile.kind != "mcu" or flashing is None or not flashing.pyocd_target:
        return Agreement(state="not compared", detail="no flashing.pyocd_target")
    if reason := pyocd_missing():
        return Agreement(state="not compared", detail=reason)
    theirs = builtin_memories(flashing.pyocd_target)
    if theirs is None:
        if flashing.pack:
            pack = f"pyOCD needs the CMSIS-Pack {flashing.pack} for it"
            return Agreement(state="not compared", detail=pack)
        return Agreement(
            state="differs",
            detail=f"flashing.pyocd_target is '{flashing.pyocd_target}', which pyOCD does not have "
            "built in, and flashing.pack names no CMSIS-Pack",
        )
    faults = [fault for region in profile.regions if (fault := _difference(region, theirs))]
    if not faults:
        return Agreement(state="agrees", detail=f"pyOCD's {flashing.pyocd_target}")
    detail = f"pyOCD's {flashing.pyocd_target}: {'; '.join(faults)}"
    if flashing.map_differs:
        return Agreement(state="explained", detail=f"{detail}. {flashing.map_differs}")
    return Agreement(
        state="differs", detail=f"{detail}. Correct one, or say why in flashing.map_differs"
    )


def _difference(region: Region, theirs: tuple[Memory, ...]) -> str:
    """How pyOCD sees a region otherwise; empty when it sees the same or does not look there."""
    end = region.origin + region.size
    here = f"{region.name} is {format_bytes(region.size)} at {region.origin:#010x}"
    ranges = [memory for memory, _ in merged(theirs)]
    meeting = [one for one in ranges if one.origin < end and region.origin < one.end]
    kind = [one for one in meeting if one.kind == region.kind]
    if not meeting:
        return f"{here}, where pyOCD has nothing"
    if not kind:
        return f"{here}, where pyOCD has {meeting[0].kind} {meeting[0].name}"
    other = kind[0]
    if other.origin <= region.origin and other.end == end:
        return ""
    if other.origin <= region.origin and other.end >= end and _is_a_part(region, theirs):
        return ""
    return f"{here}, pyOCD's {other.name} {format_bytes(other.size)} at {other.origin:#010x}"


def _is_a_part(region: Region, theirs: tuple[Memory, ...]) -> bool:
    """Whether it ends where one of pyOCD's memories does, though more of them follow."""
    return any(memory.end == region.origin + region.size for memory in theirs)


def board_faults(profile: DeviceProfile) -> list[str]:
    """Why the virtual board could not be this device; empty where it can, or there is none."""
    if profile.virtual is None:
        return []
    return [
        f"region {region.name} ({region.size} bytes at {region.origin:#010x}) is not whole pages "
        f"of {PAGE_BYTES} bytes, which [virtual] maps"
        for region in profile.regions
        if region.origin % PAGE_BYTES or region.size % PAGE_BYTES
    ]


def unknown_unconfirmed(profile: DeviceProfile) -> list[str]:
    """Entries of `unconfirmed` that are not keys of the profile."""
    document = profile.model_dump()
    unknown = []
    for entry in profile.unconfirmed:
        value = document
        for part in entry.split("."):
            value = value.get(part, _ABSENT) if isinstance(value, dict) else _ABSENT
        if value is _ABSENT:
            unknown.append(entry)
    return unknown


_ABSENT = object()
