from __future__ import annotations

import itertools
import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from edgecompress.lower.memory.arena import plan_offsets
from edgecompress.lower.memory.lifetimes import Lifetime, live_bytes, peak_live

lifetimes_strategy = st.lists(
    st.tuples(st.integers(1, 300), st.integers(0, 12), st.integers(0, 5)).map(
        lambda drawn: (drawn[0], drawn[1], drawn[1] + drawn[2])
    ),
    max_size=14,
)


def _greedy_by_size(lifetimes: list[Lifetime], alignment: int) -> int:
    """The textbook planner, written independently: falling size, lowest free offset."""
    placed: list[tuple[int, int, int, int]] = []
    for size, first, last in sorted(lifetimes, key=lambda item: (-item[0], item[1] - item[2])):
        offset = 0
        for begin, end, begins, ends in sorted(placed):
            if begins <= last and first <= ends and offset < end and begin < offset + size:
                offset = -(-end // alignment) * alignment
        placed.append((offset, offset + size, first, last))
    return max((end for _, end, _, _ in placed), default=0)


def _optimum(lifetimes: list[Lifetime], allowed: dict[tuple[int, int], int] | None = None) -> int:
    """The least total by MILP: x_i offsets, one order variable a pair live together.

    A pair that may share has a second variable: 1 makes it start as the kernel permits.
    """
    allowed = allowed or {}
    count = len(lifetimes)
    pairs = [
        (one, two)
        for one, two in itertools.combinations(range(count), 2)
        if lifetimes[one][1] <= lifetimes[two][2] and lifetimes[two][1] <= lifetimes[one][2]
    ]
    big = sum(size for size, _, _ in lifetimes)
    width = count + 1 + len(pairs) + len(allowed)
    sharing = {pair: count + 1 + len(pairs) + k for k, pair in enumerate(allowed)}
    rows, limits = [], []
    for index, (size, _, _) in enumerate(lifetimes):
        row = np.zeros(width)
        row[index], row[count] = 1, -1
        rows.append(row)
        limits.append(-size)
    for order, (one, two) in enumerate(pairs, start=count + 1):
        for below, above, sign in ((one, two, 1), (two, one, -1)):
            row = np.zeros(width)
            row[below], row[above], row[order] = 1, -1, sign * big
            for pair in ((one, two), (two, one)):
                if pair in sharing:
                    row[sharing[pair]] = -2 * big
            rows.append(row)
            limits.append(-lifetimes[below][0] + (big if sign == 1 else 0))
    for (source, output), distance in allowed.items():
        # shared: output <= input + distance, and input <= output too when exactly in place
        limit = 2 * big
        for later, earlier, bound in ((output, source, distance), (source, output, 0))[
            : 2 if distance == 0 else 1
        ]:
            row = np.zeros(width)
            row[later], row[earlier], row[sharing[source, output]] = 1, -1, limit
            rows.append(row)
            limits.append(bound + limit)
    cost = np.zeros(width)
    cost[count] = 1
    upper = np.full(width, float(big))
    upper[count + 1 :] = 1
    integrality = np.zeros(width)
    integrality[count + 1 :] = 1
    solved = milp(
        cost,
        constraints=LinearConstraint(np.array(rows), -np.inf, np.array(limits)),
        bounds=Bounds(0, upper),
        integrality=integrality,
    )
    assert solved.success
    return round(solved.fun)


@given(lifetimes_strategy, st.sampled_from([1, 4, 16]))
@settings(max_examples=150, deadline=None)
def test_live_tensors_never_overlap_and_the_total_is_sound(lifetimes, alignment):
    offsets, total = plan_offsets(lifetimes, alignment)
    assert all(offset % alignment == 0 for offset in offsets)
    placed = list(zip(offsets, lifetimes, strict=True))
    assert total == max((offset + size for offset, (size, _, _) in placed), default=0)
    assert total >= peak_live(lifetimes)[1]
    assert total <= _greedy_by_size(lifetimes, alignment)
    for (o1, (s1, f1, l1)), (o2, (s2, f2, l2)) in itertools.combinations(placed, 2):
        if f1 <= l2 and f2 <= l1:
            assert o1 + s1 <= o2 or o2 + s2 <= o1


def test_reaches_the_optimum_on_nearly_every_small_graph():
    generator = random.Random(7)
    optimal = 0
    for _ in range(30):
        lifetimes = []
        for _ in range(8):
            first = generator.randrange(8)
            lifetimes.append((generator.randrange(1, 100), first, first + generator.randrange(4)))
        total = plan_offsets(lifetimes, 1)[1]
        best = _optimum(lifetimes)
        assert total >= best
        optimal += total == best
    assert optimal >= 28


def _sharing_chain(seed: int) -> tuple[list[Lifetime], dict[tuple[int, int], int]]:
    """A network in order: each step reads one or two tensors and may write over what dies."""
    generator = random.Random(seed)
    count = generator.randint(2, 8)
    reads = [
        {generator.randint(max(0, k - 3), k - 1) for _ in range(generator.randint(1, 2))}
        for k in range(1, count)
    ]
    last = {k: k for k in range(count)}
    for k, sources in enumerate(reads, start=1):
        last.update((source, k) for source in sources)
    lifetimes = [(generator.randint(1, 60), k, last[k]) for k in range(count)]
    allowed = {
        (source, k): generator.choice([0, 0, -1, -7, -30])
        for k, sources in enumerate(reads, start=1)
        for source in sources
        if last[source] == k and generator.random() < 0.7
    }
    return lifetimes, allowed


def _overlap_wrongly(lifetimes, allowed, offsets) -> list[tuple[int, int]]:
    wrong = []
    for one, two in itertools.combinations(range(len(lifetimes)), 2):
        (s1, f1, l1), (s2, f2, l2) = lifetimes[one], lifetimes[two]
        apart = offsets[one] + s1 <= offsets[two] or offsets[two] + s2 <= offsets[one]
        if apart or f1 > l2 or f2 > l1:
            continue
        distance = allowed.get((one, two))
        moved = offsets[two] - offsets[one]
        if distance is None or (moved != 0 if distance == 0 else moved > distance):
            wrong.append((one, two))
    return wrong


@given(st.integers(0, 1 << 30).map(_sharing_chain), st.sampled_from([1, 4, 16]))
@settings(max_examples=150, deadline=None)
def test_outputs_lie_over_dying_inputs_only_as_permitted(chain, alignment):
    lifetimes, allowed = chain
    offsets, total = plan_offsets(lifetimes, alignment, allowed)
    assert all(offset % alignment == 0 for offset in offsets)
    assert _overlap_wrongly(lifetimes, allowed, offsets) == []
    assert total <= plan_offsets(lifetimes, alignment)[1]


def test_reaches_the_optimum_with_sharing_on_nearly_every_small_network():
    optimal = shared = 0
    for seed in range(40):
        lifetimes, allowed = _sharing_chain(seed)
        total, best = plan_offsets(lifetimes, 1, allowed)[1], _optimum(lifetimes, allowed)
        assert best <= total <= 1.2 * best
        optimal += total == best
        shared += best < _optimum(lifetimes)
    assert optimal >= 36
    assert shared >= 10


def test_in_place_and_diagonal_by_hand():
    lifetimes = [(100, 0, 1), (100, 1, 2), (40, 2, 3)]
    assert plan_offsets(lifetimes, 1, {(0, 1): 0, (1, 2): 0})[1] == 100
    # each output starts 10 and 5 bytes before what it reads
    assert plan_offsets(lifetimes, 1, {(0, 1): -10, (1, 2): -5}) == ([15, 5, 0], 115)


def test_the_worked_example():
    assert plan_offsets([(4, 0, 1), (2, 1, 2), (4, 2, 3)], 1) == ([0, 4, 0], 6)


def test_nothing_to_place():
    assert plan_offsets([], 16) == ([], 0)
    assert peak_live([]) == (0, 0)


def test_a_chain_needs_its_largest_pair():
    sizes = [100, 900, 400, 600, 50]
    lifetimes = [(size, step, step + 1) for step, size in enumerate(sizes)]
    assert live_bytes(lifetimes) == {0: 100, 1: 1000, 2: 1300, 3: 1000, 4: 650}
    assert plan_offsets(lifetimes, 4)[1] == 1300


@pytest.mark.parametrize("seed", range(5))
def test_the_same_input_gives_the_same_offsets(seed):
    generator = random.Random(seed)
    lifetimes = [
        (generator.randrange(1, 500), first, first + generator.randrange(6))
        for first in (generator.randrange(20) for _ in range(25))
    ]
    assert plan_offsets(lifetimes, 16) == plan_offsets(lifetimes, 16)


def test_a_hundred_layers_are_planned_in_a_blink():
    generator = random.Random(3)
    lifetimes = [
        (generator.randrange(1, 9000), step, step + generator.choice([1, 1, 1, 3]))
        for step in range(100)
    ]
    start = time.process_time()
    total = plan_offsets(lifetimes, 16)[1]
    assert time.process_time() - start < 2.0
    assert total <= 1.05 * peak_live(lifetimes)[1] + 16
