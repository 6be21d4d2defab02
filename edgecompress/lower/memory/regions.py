"""Which memory each activation and each constant lies in, where a device has several.

The hot go where an access waits least, the large where there is room. Worked example, DTCM of 128
KiB without waiting and AXI of 512 KiB with 4 cycles: a first map of 200 KiB, read once, must lie in
AXI; the columns a convolution builds in 4 KiB of scratch and reads thousands of times, and every
map small enough to lie beside them, go to DTCM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from edgecompress.errors import DoesNotFit
from edgecompress.lower.memory.arena import offsets_of, plan_offsets
from edgecompress.lower.memory.assignment import Load, Room, aligned, assign, needed_bytes
from edgecompress.lower.memory.lifetimes import Lifetime, arena_buffers, live_bytes, peak_live
from edgecompress.lower.memory.overlap import allowances
from edgecompress.lower.memory.traffic import buffer_accesses, constant_accesses
from edgecompress.lower.memory.views import settled
from edgecompress.lower.program import Arena, Buffer, Program
from edgecompress.target.schema import DeviceProfile
from edgecompress.units import format_bytes

RUNNER_BYTES = 512
"""Kept beside the stack for the runner's variables, which take about 200 bytes."""
_STACK_BYTES = 512
"""Stack that is used: what the virtual board measures is about 300 bytes."""
READ_AHEAD_BYTES = 4
"""Kernels that read whole words may read three bytes past the last activation, which must exist;
behind the arena in the stack's region the variables and the stack follow."""


def ram_rooms(profile: DeviceProfile) -> list[Room]:
    """The RAM regions, fastest first, without what stack, variables and reading ahead need.

    None on a host, whose profile states no memory.
    """
    if profile.ram_bytes is None:
        return []
    main = profile.fastest_ram
    kept = {True: profile.stack_reserve + RUNNER_BYTES, False: READ_AHEAD_BYTES}
    rooms = [
        Room(region.name, max(0, region.size - kept[region == main]), region.wait_cycles)
        for region in profile.regions
        if region.kind == "ram"
    ]
    return sorted(rooms, key=lambda room: (room.wait_cycles, -room.size_bytes))


def place_in_regions(
    program: Program, profile: DeviceProfile, ram_limit_bytes: int | None = None
) -> Program:
    """A placed program with its arena divided between the device's memories.

    A device with one RAM region, and a program the fastest holds whole, keep one arena.

    Args:
        ram_limit_bytes: what the image may use of RAM in all; met where a division meets it.

    Raises:
        DoesNotFit: no division fits; names the fullest step, what is live there, and the regions.
    """
    rooms = ram_rooms(profile)
    if profile.kind != "mcu" or len(rooms) < 2:
        return program
    buffers = arena_buffers(program)
    load = Load(
        [(item.size_bytes, item.first_step, item.last_step) for item in buffers],
        buffer_accesses(program, buffers),
        allowances(program, buffers),
        program.arena_alignment,
    )
    chosen = _whole(program.arena_bytes, rooms, len(buffers))
    if chosen is None:
        limit = None if ram_limit_bytes is None else ram_limit_bytes - RUNNER_BYTES - _STACK_BYTES
        chosen = assign(load, rooms, limit)
    if chosen is None and ram_limit_bytes is not None:
        chosen = assign(load, rooms)
    if chosen is None:
        raise _cannot_place(program, buffers, rooms)
    return _divided(program, buffers, rooms, chosen)


def _whole(arena_bytes: int, rooms: Sequence[Room], count: int) -> list[int] | None:
    """Everything in the fastest region that holds it, if none faster exists."""
    for index, room in enumerate(rooms):
        if room.wait_cycles > rooms[0].wait_cycles:
            return None
        if arena_bytes <= room.size_bytes:
            return [index] * count
    return None


def _divided(
    program: Program, buffers: Sequence[Buffer], rooms: Sequence[Room], chosen: Sequence[int]
) -> Program:
    placed = dict(program.buffers)
    arenas: list[Arena] = []
    begin = 0
    for index, room in enumerate(rooms):
        here = [item for item, region in zip(buffers, chosen, strict=True) if region == index]
        if not here:
            continue
        offsets, size = offsets_of(program, here)
        for buffer, offset in zip(here, offsets, strict=True):
            placed[buffer.name] = replace(buffer, offset_bytes=begin + offset)
        size = aligned(size, program.arena_alignment)
        arenas.append(Arena(room.name, begin, size))
        begin += size
    return replace(program, buffers=settled(placed), arena_bytes=begin, arenas=tuple(arenas))


def spread(
    lifetimes: Sequence[Lifetime], profile: DeviceProfile, alignment: int = 16
) -> tuple[int, int]:
    """(arena bytes over all regions, bytes that find no place) before there is a program.

    As much as fits one region needs no more than one arena; a tensor larger than every region has
    no place, however much RAM there is in all.
    """
    _, whole = plan_offsets(lifetimes, alignment)
    rooms = ram_rooms(profile) if profile.kind == "mcu" else []
    if len(rooms) < 2 or whole <= max(room.size_bytes for room in rooms):
        return whole, 0
    found = _spread_needs(tuple(lifetimes), tuple(rooms), alignment)
    return found or (whole, _excess(lifetimes, rooms))


@lru_cache(maxsize=4096)
def _spread_needs(
    lifetimes: tuple[Lifetime, ...], rooms: tuple[Room, ...], alignment: int
) -> tuple[int, int] | None:
    load = Load(lifetimes, [0.0] * len(lifetimes), {}, alignment)
    chosen = assign(load, rooms)
    if chosen is None:
        return None
    return sum(needed_bytes(load, chosen, index) for index in range(len(rooms))), 0


def _excess(lifetimes: Sequence[Lifetime], rooms: Sequence[Room]) -> int:
    """How much too large the worst is: one tensor, or all that is live at the fullest step."""
    largest = max(size for size, _, _ in lifetimes) - max(room.size_bytes for room in rooms)
    live = peak_live(lifetimes)[1] - sum(room.size_bytes for room in rooms)
    return max(1, largest, live)


def place_constants(program: Program, profile: DeviceProfile, room_bytes: int) -> Program:
    """The same program with the constants divided between the device's flash regions.

    Args:
        room_bytes: what code leaves of the first region.

    Raises:
        DoesNotFit: the regions together hold less than the constants; names both.
    """
    first, *others = [region for region in profile.regions if region.kind == "flash"]
    rooms = [Room(first.name, max(0, room_bytes), first.wait_cycles)]
    rooms += [Room(region.name, region.size, region.wait_cycles) for region in others]
    held: dict[tuple[str, bytes], list[int]] = {}
    for index, array in enumerate(program.constants):  # equal ones are stored once
        held.setdefault((str(array.dtype), array.tobytes()), []).append(index)
    reads = constant_accesses(program)
    sizes = [aligned(len(content), program.arena_alignment) for _, content in held]
    load = Load(
        [(size, 0, 0) for size in sizes],
        [sum(reads[index] for index in same) for same in held.values()],
        {},
        program.arena_alignment,
    )
    chosen = assign(load, rooms)
    if chosen is None:
        listed = ", ".join(f"{room.name} {format_bytes(room.size_bytes)}" for room in rooms)
        needed, limit = sum(sizes), sum(room.size_bytes for room in rooms)
        raise DoesNotFit(
            f"{program.name}'s weights take {format_bytes(needed)}; free beside code: {listed}.",
            resource="flash",
            needed=needed,
            limit=limit,
            next_step="Let `edgecompress fit` shrink the model, or choose a larger target.",
        )
    regions = [""] * len(program.constants)
    for same, region in zip(held.values(), chosen, strict=True):
        for index in same:
            regions[index] = rooms[region].name if region else ""
    return replace(program, constant_regions=tuple(regions))


def _cannot_place(program: Program, buffers: Sequence[Buffer], rooms: Sequence[Room]) -> DoesNotFit:
    """Which step, what is live there, and what the regions hold.

    Where the largest tensor of a step exceeds every region, that is the step named.
    """
    lifetimes = [(item.size_bytes, item.first_step, item.last_step) for item in buffers]
    allowed = allowances(program, buffers)
    step, live = peak_live(lifetimes, allowed)
    largest = max(buffers, key=lambda item: item.size_bytes)
    room = max(item.size_bytes for item in rooms)
    if largest.size_bytes > room:
        step = max(0, largest.first_step)
        by_step = live_bytes(lifetimes, allowed)
        live = by_step[max(known for known in by_step if known <= step)]
    there = sorted(
        (item for item in buffers if item.first_step <= step <= item.last_step),
        key=lambda item: -item.size_bytes,
    )
    named = " + ".join(f"{item.name} {format_bytes(item.size_bytes)}" for item in there)
    regions = ", ".join(f"{item.name} {format_bytes(item.size_bytes)}" for item in rooms)
    whole = sum(item.size_bytes for item in rooms)
    alone = largest.size_bytes > room
    why = f"; {largest.name} alone is larger than any region" if alone else ""
    name = program.steps[max(step, 0)].name
    return DoesNotFit(
        f"{program.name}'s activations cannot be placed: at step '{name}' {format_bytes(live)} are "
        f"live ({named}){why}; free beside stack and variables: {regions}.",
        resource="ram",
        needed=largest.size_bytes if alone else live,
        limit=room if alone else whole,
        next_step="Let `edgecompress fit` shrink the model, or choose a larger target.",
    )
