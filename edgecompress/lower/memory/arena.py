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
from dataclasses import dataclass, replace
from functools import lru_cache

from edgecompress.lower.memory.lifetimes import Lifetime, arena_buffers, peak_live
from edgecompress.lower.memory.overlap import Allowance, allowances
from edgecompress.lower.memory.views import settled
from edgecompress.lower.program import Buffer, Program
from edgecompress.records import ArenaPlacement, MemoryMap, TensorPlacement

_SEARCH_ROUNDS = 400
_SEARCH_SEED = 0


def plan_offsets(
    lifetimes: Sequence[Lifetime], alignment: int = 16, allowed: Allowance | None = None
) -> tuple[list[int], int]:
    """Offsets in the order given, and the arena's size in bytes.

    Args:
        lifetimes: (size in bytes, first step, last step) of each tensor, both steps included.
        alignment: every offset is a multiple of it.
        allowed: which outputs may lie over which dying inputs (`memory.overlap`).

    Returns:
        (offsets, total): total is the end of the highest tensor, 0 when there is none. Never more
        than first fit by falling size, nor than without `allowed`; the same input gives the same
        offsets.
    """
    if not lifetimes:
        return [], 0
    if allowed:
        # sharing only widens the choice: never worse than without
        shared = _searched(lifetimes, alignment, allowed)
        if shared[1] == peak_live(lifetimes, allowed)[1]:
            return shared
        return min(shared, plan_offsets(lifetimes, alignment), key=lambda found: found[1])
    return _searched(lifetimes, alignment, {})


def _searched(
    lifetimes: Sequence[Lifetime], alignment: int, allowed: Allowance
) -> tuple[list[int], int]:
    """`_search`, remembered: programs that differ in their kernels alone have equal lifetimes."""
    offsets, total = _remembered(tuple(lifetimes), alignment, tuple(allowed.items()))
    return list(offsets), total


@lru_cache(maxsize=512)
def _remembered(
    lifetimes: tuple[Lifetime, ...],
    alignment: int,
    allowed: tuple[tuple[tuple[int, int], int], ...],
) -> tuple[list[int], int]:
    return _search(lifetimes, alignment, dict(allowed))


def _search(
    lifetimes: Sequence[Lifetime], alignment: int, allowed: Allowance
) -> tuple[list[int], int]:
    """The best of several orders, then local search, unless one meets the lower bound."""
    _, least_bytes = peak_live(lifetimes, allowed)
    problem = _Problem(lifetimes, _neighbours(lifetimes), alignment, allowed)
    best_order: list[int] = []
    best_offsets: list[int] = []
    best_total = 0
    for order in _orders(lifetimes, allowed):
        offsets, total = _first_fit(problem, order)
        if not best_offsets or total < best_total:
            best_order, best_offsets, best_total = order, offsets, total
        if best_total == least_bytes:
            return best_offsets, best_total
    return _improve(problem, best_order, best_offsets, least_bytes)


def place(program: Program) -> Program:
    """The same program with every buffer's `offset_bytes` and `arena_bytes` set.

    Where it costs nothing the model's input is kept to the end, so that an inference can be run
    again on it (`input_preserved`). One arena: `memory.regions` divides it between memories.
    """
    buffers = arena_buffers(program)
    offsets, arena_bytes = offsets_of(program, buffers)
    placed = dict(program.buffers)
    for buffer, offset in zip(buffers, offsets, strict=True):
        placed[buffer.name] = replace(buffer, offset_bytes=offset)
    return replace(program, buffers=settled(placed), arena_bytes=arena_bytes, arenas=())


def offsets_of(program: Program, buffers: Sequence[Buffer]) -> tuple[list[int], int]:
    """(offsets, bytes) of some of a program's buffers in an arena of their own.

    Where it costs nothing the model's input is kept to the end.
    """
    lifetimes = [(item.size_bytes, item.first_step, item.last_step) for item in buffers]
    allowed = allowances(program, buffers)
    offsets, arena_bytes = plan_offsets(lifetimes, program.arena_alignment, allowed)
    inputs = {index for index, item in enumerate(buffers) if item.name in program.input_buffers}
    if not inputs:
        return offsets, arena_bytes
    kept = [
        (size, first, len(program.steps) if index in inputs else last)
        for index, (size, first, last) in enumerate(lifetimes)
    ]
    elsewhere = {pair: distance for pair, distance in allowed.items() if pair[0] not in inputs}
    kept_offsets, kept_bytes = plan_offsets(kept, program.arena_alignment, elsewhere)
    if kept_bytes <= arena_bytes:
        return kept_offsets, kept_bytes
    return offsets, arena_bytes


def input_preserved(program: Program) -> bool:
    """True when no step of a placed program overwrites the model's input."""
    inputs = [program.buffers[name] for name in program.input_buffers]
    others = [item for item in arena_buffers(program) if item.name not in program.input_buffers]
    return all(
        other.offset_bytes + other.size_bytes <= item.offset_bytes
        or item.offset_bytes + item.size_bytes <= other.offset_bytes
        for item in inputs
        for other in others
    )


def memory_map(program: Program) -> MemoryMap:
    """Where a placed program's activations lie, and the step at which most bytes are live."""
    buffers = sorted(arena_buffers(program), key=lambda item: (item.first_step, item.offset_bytes))
    lifetimes = [(b.size_bytes, b.first_step, b.last_step) for b in buffers]
    step, live = peak_live(lifetimes, allowances(program, buffers))
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
        peak_step=program.steps[max(step, 0)].name if buffers else "",
        peak_live_bytes=live,
        occupied_bytes=tuple(_occupied(buffers, index) for index in range(len(program.steps))),
        peak_index=step,
        arenas=tuple(
            ArenaPlacement(
                region=arena.region, offset_bytes=arena.offset_bytes, size_bytes=arena.size_bytes
            )
            for arena in program.arenas
        ),
    )


def _occupied(buffers: Sequence[Buffer], step: int) -> int:
    """Arena bytes that hold something live at a step, shared ones counted once."""
    ranges = sorted(
        (item.offset_bytes, item.offset_bytes + item.size_bytes)
        for item in buffers
        if item.first_step <= step <= item.last_step
    )
    total = end = 0
    for begin, finish in ranges:
        total += max(0, finish - max(begin, end))
        end = max(end, finish)
    return total


def _orders(lifetimes: Sequence[Lifetime], allowed: Allowance) -> list[list[int]]:
    """Placement orders that each do well on some family of graphs."""

    def sorted_by(key) -> list[int]:
        return sorted(range(len(lifetimes)), key=lambda index: (*key(*lifetimes[index]), index))

    by_size = sorted_by(lambda size, first, last: (-size, first - last))
    first = _growing_first(lifetimes, allowed)
    return [
        by_size,
        *([[*first, *(index for index in by_size if index not in first)]] if first else []),
        sorted_by(lambda size, first, last: (-size * (last - first + 1),)),
        sorted_by(lambda size, first, last: (first - last, -size)),
        sorted_by(lambda size, first, _last: (first, -size)),
        sorted_by(lambda size, _first, last: (-last, -size)),
    ]


def _growing_first(lifetimes: Sequence[Lifetime], allowed: Allowance) -> list[int]:
    """Outputs that grow over their sources for several steps, with those sources.

    An output comes before its source, which must lie a little higher; behind them what lies
    exactly in place over one of them, or under it, and so on along the chain.
    """
    found = dict.fromkeys(
        index
        for source, output in sorted(allowed, key=lambda pair: -lifetimes[pair[1]][0])
        if lifetimes[source][2] > lifetimes[output][1]
        for index in (output, source)
    )
    chain = list(found)
    for index in chain:
        for pair, distance in allowed.items():
            if distance == 0 and index in pair:
                chain.extend(other for other in pair if other not in chain)
    return chain


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


@dataclass(frozen=True)
class _Problem:
    lifetimes: Sequence[Lifetime]
    neighbours: Sequence[Sequence[int]]
    alignment: int
    allowed: Allowance


def _first_fit(problem: _Problem, order: Sequence[int]) -> tuple[list[int], int]:
    """Each tensor in turn at the lowest aligned offset its placed neighbours permit."""
    lifetimes, alignment = problem.lifetimes, problem.alignment
    offsets = [-1] * len(lifetimes)
    total = 0
    for index in order:
        size = lifetimes[index][0]
        forbidden = [
            _forbidden(problem, index, other, offsets[other])
            for other in problem.neighbours[index]
            if offsets[other] >= 0
        ]
        forbidden.sort()
        offset = 0
        for least, most, _ in forbidden:
            if offset <= least:
                break
            if offset < most:
                offset = -(-most // alignment) * alignment
        for _, _, point in forbidden:  # exactly in place
            if 0 <= point < offset and all(
                point <= least or point >= most or point == other
                for least, most, other in forbidden
            ):
                offset = point
        offsets[index] = offset
        total = max(total, offset + size)
    return offsets, total


def _forbidden(problem: _Problem, index: int, other: int, begin: int) -> tuple[int, int, int]:
    """(least, most, point): with `other` at `begin`, no offset of `index` strictly between least
    and most is free, but for `point` (-1: none)."""
    size, other_size = problem.lifetimes[index][0], problem.lifetimes[other][0]
    least, most = begin - size, begin + other_size
    if (other, index) in problem.allowed:  # index is the output
        distance = problem.allowed[other, index]
        if distance == 0:
            return least, most, begin
        return max(least, min(begin + distance, most)), most, -1
    if (index, other) in problem.allowed:  # index is the input
        distance = problem.allowed[index, other]
        if distance == 0:
            return least, most, begin
        return least, max(least, min(most, begin - distance)), -1
    return least, most, -1


def _improve(
    problem: _Problem, order: list[int], offsets: list[int], least_bytes: int
) -> tuple[list[int], int]:
    """Local search over orders: the tensor that ends highest goes earlier, now and then a swap."""
    lifetimes = problem.lifetimes
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
        trial_offsets, trial_total = _first_fit(problem, trial)
        if trial_total <= current_total:
            order, current_total = trial, trial_total
            _, top = highest(trial_offsets)
        if trial_total < best_total:
            best_offsets, best_total = trial_offsets, trial_total
    return best_offsets, best_total
