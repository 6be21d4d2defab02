"""Which region holds what, so that accesses wait least: an integer program (HiGHS through scipy).

x[b, r] = 1 when buffer b lies in region r. At every step what is live in r is at most r's size.
That sum is a lower bound of what offsets need; the exact planner then places each region, and a
set of buffers it cannot place is forbidden and the program solved again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgecompress.lower.memory.arena import plan_offsets
from edgecompress.lower.memory.lifetimes import Lifetime
from edgecompress.lower.memory.overlap import Allowance

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
        needed = [needed_bytes(load, chosen, index) for index in range(len(rooms))]
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


def needed_bytes(load: Load, chosen: Sequence[int], region: int) -> int:
    """What the planner's offsets take of one region."""
    members = [index for index, where in enumerate(chosen) if where == region]
    position = {member: index for index, member in enumerate(members)}
    allowed = {
        (position[source], position[output]): distance
        for (source, output), distance in load.allowed.items()
        if source in position and output in position
    }
    _, total = plan_offsets([load.lifetimes[item] for item in members], load.alignment, allowed)
    return aligned(total, load.alignment)


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
        sizes = [aligned(size, load.alignment) for size, _, _ in load.lifetimes]
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


def waiting_cycles(
    accesses: Sequence[float], chosen: Sequence[int], rooms: Sequence[Room]
) -> float:
    """Estimated core cycles of waiting in one inference."""
    return sum(
        count * rooms[region].wait_cycles for count, region in zip(accesses, chosen, strict=True)
    )


def aligned(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment
