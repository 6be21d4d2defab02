"""The arena planner: a byte offset for every activation, so that live ones never overlap.

Worked example, alignment 1. Three tensors, (size, first step, last step):

    a = (4, 0, 1)    b = (2, 1, 2)    c = (4, 2, 3)

At step 1 `a` and `b` are live, at step 2 `b` and `c`: 6 bytes at least. First fit in the order of
size puts `a` at 0, `c` at 0 (it never meets `a`) and `b` at 4. Total 6, which is the lower bound.

Finding the least total is NP-hard (it is dynamic storage allocation). The planner tries several
first-fit orders and then moves whatever stands highest to the front of the order until nothing
improves; it stops as soon as it meets the lower bound, which is what nearly every network does.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from edgecompress.lower.memory.lifetimes import Lifetime, arena_buffers, peak_live
from edgecompress.lower.program import Program
from edgecompress.records import MemoryMap, TensorPlacement

_SEARCH_ROUNDS = 400
_SEARCH_SEED = 0


def plan_offsets(lifetimes: Sequence[Lifetime], alignment: int = 16) -> tuple[list[int], int]:
    """Offsets in the order given, and the arena's size in bytes.

    Args:
        lifetimes: (size in bytes, first step, last step) of each tensor, both steps included.
        alignment: every offset is a multiple of it.

    Returns:
        (offsets, total): total is the end of the highest tensor, 0 when there is none. Never more
        than first fit by falling size; the same input gives the same offsets.
    """
    if not lifetimes:
        return [], 0
    _, least_bytes = peak_live(lifetimes)
    neighbours = _neighbours(lifetimes)
    best_order: list[int] = []
    best_offsets: list[int] = []
    best_total = 0
    for order in _orders(lifetimes):
        offsets, total = _first_fit(lifetimes, neighbours, order, alignment)
        if not best_offsets or total < best_total:
            best_order, best_offsets, best_total = order, offsets, total
        if best_total == least_bytes:
            return best_offsets, best_total
    return _improve(lifetimes, neighbours, best_order, best_offsets, alignment, least_bytes)


def place(program: Program) -> Program:
    """The same program with every arena buffer's `offset_bytes` and `arena_bytes` set."""
    buffers = arena_buffers(program)
    lifetimes = [(item.size_bytes, item.first_step, item.last_step) for item in buffers]
    offsets, arena_bytes = plan_offsets(lifetimes, program.arena_alignment)
    placed = dict(program.buffers)
    for buffer, offset in zip(buffers, offsets, strict=True):
        placed[buffer.name] = replace(buffer, offset_bytes=offset)
    return replace(program, buffers=placed, arena_bytes=arena_bytes)


def memory_map(program: Program) -> MemoryMap:
    """Where a placed program's activations lie, and the step at which most bytes are live."""
    buffers = sorted(arena_buffers(program), key=lambda item: (item.first_step, item.offset_bytes))
    step, live = peak_live([(b.size_bytes, b.first_step, b.last_step) for b in buffers])
    return MemoryMap(
        arena_bytes=program.arena_bytes,
        tensors=tuple(
            TensorPlacement(
                name=buffer.name,
                offset_bytes=buffer.offset_bytes,
                size_bytes=buffer.size_bytes,
                first_step=buffer.first_step,
                last_step=buffer.last_step,
            )
            for buffer in buffers
        ),
        peak_step=program.steps[step].name if buffers else "",
        peak_live_bytes=live,
    )


def _orders(lifetimes: Sequence[Lifetime]) -> list[list[int]]:
    """Placement orders that each do well on some family of graphs."""

    def sorted_by(key) -> list[int]:
        return sorted(range(len(lifetimes)), key=lambda index: (*key(*lifetimes[index]), index))

    return [
        sorted_by(lambda size, first, last: (-size, first - last)),
        sorted_by(lambda size, first, last: (-size * (last - first + 1),)),
        sorted_by(lambda size, first, last: (first - last, -size)),
        sorted_by(lambda size, first, _last: (first, -size)),
        sorted_by(lambda size, _first, last: (-last, -size)),
    ]


def _neighbours(lifetimes: Sequence[Lifetime]) -> list[list[int]]:
    """For each tensor, those live at the same time as it."""
    return [
        [
            other
            for other, (_, begins, ends) in enumerate(lifetimes)
            if other != index and begins <= last and first <= ends
        ]
        for index, (_, first, last) in enumerate(lifetimes)
    ]


def _first_fit(
    lifetimes: Sequence[Lifetime],
    neighbours: Sequence[Sequence[int]],
    order: Sequence[int],
    alignment: int,
) -> tuple[list[int], int]:
    """Each tensor in turn at the lowest aligned offset free of the neighbours already placed."""
    offsets = [-1] * len(lifetimes)
    total = 0
    for index in order:
        size = lifetimes[index][0]
        taken = sorted(
            (offsets[other], offsets[other] + lifetimes[other][0])
            for other in neighbours[index]
            if offsets[other] >= 0
        )
        offset = 0
        for begin, end in taken:
            if offset + size <= begin:
                break
            offset = max(offset, -(-end // alignment) * alignment)
        offsets[index] = offset
        total = max(total, offset + size)
    return offsets, total


def _improve(
    lifetimes: Sequence[Lifetime],
    neighbours: Sequence[Sequence[int]],
    order: list[int],
    offsets: list[int],
    alignment: int,
    least_bytes: int,
) -> tuple[list[int], int]:
    """Local search over orders: the tensor that ends highest goes earlier, now and then a swap."""
    generator = random.Random(_SEARCH_SEED)

    def highest(candidate: Sequence[int]) -> tuple[int, int]:
        ends = [offset + lifetimes[index][0] for index, offset in enumerate(candidate)]
        return max(ends), ends.index(max(ends))

    best_total, top = highest(offsets)
    best_offsets, current_total = offsets, best_total
    for _ in range(_SEARCH_ROUNDS):
        if best_total == least_bytes:
            break
        trial = list(order)
        position = trial.index(top)
        if position and generator.random() < 0.7:
            trial.insert(generator.randrange(position), trial.pop(position))
        else:
            one, two = generator.randrange(len(trial)), generator.randrange(len(trial))
            trial[one], trial[two] = trial[two], trial[one]
        trial_offsets, trial_total = _first_fit(lifetimes, neighbours, trial, alignment)
        if trial_total <= current_total:
            order, current_total = trial, trial_total
            _, top = highest(trial_offsets)
        if trial_total < best_total:
            best_offsets, best_total = trial_offsets, trial_total
    return best_offsets, best_total
