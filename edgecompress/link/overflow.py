"""The linker ran out of a memory region: by how much, and what to say about it."""

from __future__ import annotations

import re

from edgecompress.errors import DoesNotFit
from edgecompress.lower.memory.arena import memory_map
from edgecompress.lower.program import Program
from edgecompress.memory_records import describe_peak
from edgecompress.target.schema import DeviceProfile
from edgecompress.units import format_bytes

_OVERFLOW = re.compile(
    r"section '([^']+)' will not fit in region '([^']+)': overflowed by (\d+) bytes"
)


def overflows(output: str) -> dict[str, int]:
    """Region -> bytes too many, from what lld printed; it may be a little short of the need."""
    found: dict[str, int] = {}
    for _section, region, count in _OVERFLOW.findall(output):
        found[region] = max(int(count), found.get(region, 0))
    return found


def raise_if_too_big(output: str, program: Program, profile: DeviceProfile) -> None:
    """Turns lld's "will not fit" into DoesNotFit, naming the region most overrun."""
    found = overflows(output)
    if not found:
        return
    name = max(found, key=lambda region: found[region])
    region = next(item for item in profile.regions if item.name == name)
    if region.kind == "ram":
        memory = memory_map(program)
        cause = (
            f"the arena takes {format_bytes(memory.arena_bytes)}, the stack's reserve "
            f"{format_bytes(profile.stack_reserve)}. {describe_peak(memory)}"
        )
    else:
        cause = f"the weights take {format_bytes(program.constant_bytes)}."
    raise DoesNotFit(
        f"{program.name} is {found[name]} bytes ({format_bytes(found[name])}) too big for "
        f"{profile.name}'s {name} region of {format_bytes(region.size)}; {cause}",
        resource=region.kind,
        needed=region.size + found[name],
        limit=region.size,
        next_step="Let `edgecompress fit` shrink the model, or choose a larger target.",
    ) from None
