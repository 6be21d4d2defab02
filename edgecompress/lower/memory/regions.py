"""Which memory each activation and each constant lies in, where a device has several.

The hot go where an access waits least, the large where there is room. Worked example, DTCM of 128
KiB without waiting and AXI of 512 KiB with 4 cycles: a first map of 200 KiB, read once, must lie in
AXI; the columns a convolution builds in 4 KiB of scratch and reads thousands of times, and every
map small enough to lie beside them, go to DTCM.

Placing is a small integer program (HiGHS through scipy): x[b, r] = 1 when buffer b lies in region
r, the waiting of all accesses is least, and at every step what is live in r is at most r's size.
That live sum is a lower bound of what offsets need; the exact planner then places each region, and
a set of buffers it cannot place is forbidden and the program solved again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgecompress.errors import DoesNotFit
from edgecompress.lower.memory.arena import offsets_of, plan_offsets
from edgecompress.lower.memory.lifetimes import Lifetime, arena_buffers, live_bytes, peak_live
from edgecompress.lower.memory.overlap import Allowance, allowances
from edgecompress.lower.memory.traffic import buffer_accesses, constant_accesses
from edgecompress.lower.memory.views import settled
from edgecompress.lower.program import Arena, Buffer, Program
from edgecompress.target.schema import DeviceProfile
from edgecompress.units import format_bytes

RUNNER_BYTES = 512
"""Kept beside the stack for the runner's variables, which take about 200 bytes."""
_STACK_BYTES = 512
"""Stack that is used: what the virtual board measures is about 300 bytes."""

_ROUNDS = 40
_TIE_BREAK = 1e-3


@dataclass(frozen=True)
class Room:
    """What a region has left, and what an access to it waits in cycles."""

    name: str
    size_bytes: int
    wait_cycles: float


@dataclass(frozen=True)
class Load:
    """What is to be placed: lifetimes, accesses of each, and which may share bytes."""

    lifetimes: Sequence[Lifetime]
    accesses: Sequence[float]
    allowed: Allowance
    alignment: int = 16


def ram_rooms(profile: DeviceProfile) -> list[Room]:
    """The RAM regions, fastest first, without what stack and variables need."""
    main = profile.fastest_ram
    rooms = [
        Room(
            region.name,
            max(0, region.size - (profile.stack_reserve + RUNNER_BYTES) * (region == main)),
            region.wait_cycles,
        )
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
        size = _aligned(size, program.arena_alignment)
        arenas.append(Arena(room.name, begin, size))
        begin += size
    return replace(program, buffers=settled(placed), arena_bytes=begin, arenas=tuple(arenas))


def assign(load: Load, rooms: Sequence[Room], limit_bytes: int | None = None) -> list[int] | None:
    """The index of each tensor's region, or None when no division fits.

    Args:
        limit_bytes: on the sum of the regions' arenas.

    Returns:
        Regions with the least cycles of waiting; among nearly equal ones, the least RAM. Exact
        with respect to `plan_offsets`, but for a division only a better planner could place.
    """
    if not load.lifetimes:
        return []
    sizes = [float(room.size_bytes) for room in rooms]
    limit = float("inf") if limit_bytes is None else float(limit_bytes)
    forbidden: list[tuple[int, frozenset[int]]] = []
    for turn in range(_ROUNDS):
        chosen = _solve(load, rooms, sizes, limit, forbidden)
        if chosen is None:
            return None
        needed = [_needed_bytes(load, chosen, index) for index in range(len(rooms))]
        over = [index for index, room in enumerate(rooms) if needed[index] > room.size_bytes]
        for index in over:
            members = frozenset(b for b, region in enumerate(chosen) if region == index)
            forbidden.append((index, members))
            if turn >= _ROUNDS // 2:  # too many such sets: leave room for the gaps instead
                sizes[index] -= needed[index] - rooms[index].size_bytes
        if over:
            continue
        if limit_bytes is None or sum(needed) <= limit_bytes:
            return chosen
        limit -= sum(needed) - limit_bytes
    return None


def _needed_bytes(load: Load, chosen: Sequence[int], region: int) -> int:
    """What the planner's offsets take of one region."""
    members = [index for index, where in enumerate(chosen) if where == region]
    position = {member: index for index, member in enumerate(members)}
    allowed = {
        (position[source], position[output]): distance
        for (source, output), distance in load.allowed.items()
        if source in position and output in position
    }
    _, total = plan_offsets([load.lifetimes[item] for item in members], load.alignment, allowed)
    return _aligned(total, load.alignment)


def _solve(
    load: Load,
    rooms: Sequence[Room],
    sizes: Sequence[float],
    limit: float,
    forbidden: Sequence[tuple[int, frozenset[int]]],
) -> list[int] | None:
    """One integer program; columns are x[b, r], then s[pair, r] (shared bytes), then peak[r]."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    sizes = [max(0.0, size) for size in sizes]
    pairs = list(load.allowed.items())
    model = _Model(len(load.lifetimes), len(pairs), len(rooms))
    cost = np.zeros(model.columns)
    waiting = [count * room.wait_cycles for count in load.accesses for room in rooms]
    scale = max(waiting, default=0.0) or 1.0
    cost[: len(waiting)] = np.array(waiting) / scale
    cost[model.peak(0) :] = _TIE_BREAK / max(1, sum(size for size, _, _ in load.lifetimes))
    for buffer in range(model.buffers):
        model.row({model.place(buffer, r): 1.0 for r in range(model.regions)}, 1.0, 1.0)
    model.live_rows(load, pairs)
    model.sharing_rows(pairs)
    model.row({model.peak(r): 1.0 for r in range(model.regions)}, -np.inf, limit)
    for region, members in forbidden:
        model.row({model.place(b, region): 1.0 for b in members}, -np.inf, len(members) - 1.0)
    upper = np.ones(model.columns)
    upper[model.peak(0) :] = sizes
    integral = np.zeros(model.columns)
    integral[: model.buffers * model.regions] = 1
    found = milp(
        cost,
        constraints=LinearConstraint(*model.matrix()),
        bounds=Bounds(np.zeros(model.columns), upper),
        integrality=integral,
        options={"mip_rel_gap": 1e-6, "time_limit": 20.0},
    )
    if found.x is None:
        return None
    places = found.x[: model.buffers * model.regions].reshape(model.buffers, model.regions)
    return [int(row) for row in places.argmax(axis=1)]


class _Model:
    """Rows of the integer program while they are gathered."""

    def __init__(self, buffers: int, pairs: int, regions: int) -> None:
        self.buffers, self.pairs, self.regions = buffers, pairs, regions
        self.columns = (buffers + pairs + 1) * regions
        self.rows: list[dict[int, float]] = []
        self.least: list[float] = []
        self.most: list[float] = []

    def place(self, buffer: int, region: int) -> int:
        return buffer * self.regions + region

    def shared(self, pair: int, region: int) -> int:
        return (self.buffers + pair) * self.regions + region

    def peak(self, region: int) -> int:
        return (self.buffers + self.pairs) * self.regions + region

    def row(self, terms: Mapping[int, float], least: float, most: float) -> None:
        self.rows.append(dict(terms))
        self.least.append(least)
        self.most.append(most)

    def live_rows(self, load: Load, pairs: Sequence[tuple[tuple[int, int], int]]) -> None:
        """At each step that begins a lifetime: what is live in a region, less what is shared."""
        sizes = [_aligned(size, load.alignment) for size, _, _ in load.lifetimes]
        for step in sorted({first for _, first, _ in load.lifetimes}):
            live = [b for b, (_, first, last) in enumerate(load.lifetimes) if first <= step <= last]
            for region in range(self.regions):
                terms = {self.place(b, region): float(sizes[b]) for b in live}
                for index, ((source, output), distance) in enumerate(pairs):
                    if load.lifetimes[output][1] != step:
                        continue
                    both = min(sizes[source], sizes[output])
                    saved = both if distance == 0 else min(both, sizes[output] + distance)
                    terms[self.shared(index, region)] = -float(max(0, saved))
                terms[self.peak(region)] = -1.0
                self.row(terms, -np.inf, 0.0)

    def sharing_rows(self, pairs: Sequence[tuple[tuple[int, int], int]]) -> None:
        """Bytes are shared where both lie; exactly in place an output lies over one input only."""
        for region in range(self.regions):
            over: dict[int, list[int]] = {}
            for index, ((source, output), distance) in enumerate(pairs):
                column = self.shared(index, region)
                for buffer in (source, output):
                    self.row({column: 1.0, self.place(buffer, region): -1.0}, -np.inf, 0.0)
                if distance == 0:
                    over.setdefault(output, []).append(column)
            for columns in over.values():
                self.row(dict.fromkeys(columns, 1.0), -np.inf, 1.0)

    def matrix(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        matrix = np.zeros((len(self.rows), self.columns))
        for index, terms in enumerate(self.rows):
            matrix[index, list(terms)] = list(terms.values())
        return matrix, np.array(self.least), np.array(self.most)


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
    sizes = [_aligned(len(content), program.arena_alignment) for _, content in held]
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


def waiting_cycles(
    accesses: Sequence[float], chosen: Sequence[int], rooms: Sequence[Room]
) -> float:
    """Estimated core cycles of waiting in one inference."""
    return sum(
        count * rooms[region].wait_cycles for count, region in zip(accesses, chosen, strict=True)
    )


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
        step = largest.first_step
        live = live_bytes(lifetimes, allowed)[step]
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


def _aligned(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment
