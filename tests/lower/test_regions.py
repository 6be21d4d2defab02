from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_programs import int8_program

from edgecompress.errors import BuildFailed, DoesNotFit
from edgecompress.lower.memory.arena import memory_map, place, plan_offsets
from edgecompress.lower.memory.assignment import Load, Room, assign, waiting_cycles
from edgecompress.lower.memory.regions import (
    READ_AHEAD_BYTES,
    place_in_regions,
    ram_rooms,
    spread,
)
from edgecompress.lower.passes.specification import check_placed
from edgecompress.lower.program import Buffer, Program
from edgecompress.target import DeviceProfile, load_target

FAST_AND_LARGE = (Room("DTCM", 64, 0.0), Room("AXI", 96, 4.0))


def with_ram(sizes: dict[str, int]) -> DeviceProfile:
    """The two-memory target with other RAM sizes."""
    document = load_target("cortex-m7-tcm").model_dump()
    for region in document["regions"]:
        region["size"] = sizes.get(region["name"], region["size"])
    return DeviceProfile.model_validate(document)


def needed(load: Load, members: list[int]) -> int:
    position = {member: index for index, member in enumerate(members)}
    allowed = {
        (position[a], position[b]): distance
        for (a, b), distance in load.allowed.items()
        if a in position and b in position
    }
    return plan_offsets([load.lifetimes[i] for i in members], load.alignment, allowed)[1]


def cheapest(load: Load, rooms: tuple[Room, ...], limit: int | None) -> float | None:
    """The least waiting over every assignment the planner can place."""
    best = None
    for chosen in itertools.product(range(len(rooms)), repeat=len(load.lifetimes)):
        totals = [
            needed(load, [i for i, where in enumerate(chosen) if where == region])
            for region in range(len(rooms))
        ]
        if any(total > room.size_bytes for total, room in zip(totals, rooms, strict=True)):
            continue
        if limit is not None and sum(totals) > limit:
            continue
        cost = waiting_cycles(load.accesses, chosen, rooms)
        best = cost if best is None else min(best, cost)
    return best


@st.composite
def loads(draw) -> Load:
    count = draw(st.integers(1, 6))
    lifetimes, accesses = [], []
    for _ in range(count):
        first = draw(st.integers(0, 4))
        lifetimes.append((draw(st.integers(1, 60)), first, first + draw(st.integers(0, 3))))
        accesses.append(float(draw(st.integers(0, 500))))
    allowed = {
        (a, b): 0
        for a, b in itertools.permutations(range(count), 2)
        if lifetimes[a][2] == lifetimes[b][1] and draw(st.integers(0, 3)) == 0
    }
    return Load(lifetimes, accesses, allowed, alignment=1)


@settings(max_examples=60, deadline=None)
@given(load=loads(), limit=st.one_of(st.none(), st.integers(20, 160)))
def test_no_assignment_of_few_tensors_waits_less(load, limit):
    chosen = assign(load, FAST_AND_LARGE, limit)
    least = cheapest(load, FAST_AND_LARGE, limit)
    if least is None:
        assert chosen is None
        return
    assert chosen is not None
    for region, room in enumerate(FAST_AND_LARGE):
        members = [i for i, where in enumerate(chosen) if where == region]
        assert needed(load, members) <= room.size_bytes
    # ties are broken by RAM, worth at most a thousandth of the hottest tensor's waiting
    hottest = 4.0 * max(load.accesses)
    assert waiting_cycles(load.accesses, chosen, FAST_AND_LARGE) <= least + 2e-3 * hottest + 1e-6


def test_the_hot_go_to_the_fast_memory_and_the_large_to_the_other():
    # a large map written and read once, columns read again and again, a small map
    load = Load([(90, 0, 1), (30, 1, 1), (34, 1, 2)], [90.0, 5000.0, 60.0], {}, alignment=1)
    assert assign(load, FAST_AND_LARGE) == [1, 0, 0]


def test_two_memories_hold_no_tensor_larger_than_either():
    load = Load([(100, 0, 1)], [1.0], {}, alignment=1)
    assert assign(load, (Room("A", 64, 0.0), Room("B", 64, 0.0))) is None


def test_tensors_that_share_bytes_count_once_where_they_lie_together():
    load = Load([(60, 0, 1), (60, 1, 2)], [100.0, 100.0], {(0, 1): 0}, alignment=1)
    assert assign(load, FAST_AND_LARGE) == [0, 0]
    assert assign(replace(load, allowed={}), FAST_AND_LARGE) in ([0, 1], [1, 0])


def test_a_large_tensor_has_no_place_in_two_small_memories():
    profile = with_ram({"DTCM": 128 * 1024, "AXI": 128 * 1024})
    assert spread([(200 * 1024, 0, 1)], profile) == (200 * 1024, 72 * 1024 + READ_AHEAD_BYTES)
    two = [(100 * 1024, 0, 1), (110 * 1024, 0, 2)]
    assert spread(two, profile) == (210 * 1024, 0)
    assert spread([(100 * 1024, 0, 1), (20 * 1024, 1, 2)], profile) == (120 * 1024, 0)
    assert spread([*two, (100 * 1024, 1, 2)], profile)[1] > 0


def test_one_memory_or_a_host_spreads_nothing():
    lifetimes = [(200 * 1024, 0, 1), (200 * 1024, 1, 2)]
    for target in ("cortex-m7", "x86-64"):
        assert spread(lifetimes, load_target(target)) == (400 * 1024, 0)


def maps(sizes: list[int]) -> Program:
    """`int8_program` with activations of other sizes, in one arena."""
    program = int8_program(alignment=16)
    buffers = dict(program.buffers)
    for name, size in zip(buffers, sizes, strict=False):
        buffers[name] = replace(buffers[name], size_bytes=size, shape=(1, size))
    return place(replace(program, buffers=buffers))


def test_what_the_fastest_memory_holds_stays_one_arena():
    program = place_in_regions(int8_program(alignment=16), load_target("cortex-m7-tcm"))
    assert [arena.region for arena in program.arenas] == ["DTCM"]
    assert program.arenas[0].size_bytes >= program.arena_bytes > 0
    check_placed(program)


def test_a_device_with_one_memory_is_left_alone():
    program = int8_program()
    assert place_in_regions(program, load_target("cortex-m7")) is program


def test_a_divided_program_keeps_every_tensor_inside_one_memory():
    profile = with_ram({"DTCM": 8192, "AXI": 8192})
    program = place_in_regions(maps([3000, 2500, 3600, 3000, 900]), profile)
    assert [arena.region for arena in program.arenas] == ["DTCM", "AXI"]
    check_placed(program)
    rooms = {room.name: room.size_bytes for room in ram_rooms(profile)}
    end = 0
    for arena in program.arenas:
        assert arena.offset_bytes == end
        assert arena.size_bytes <= rooms[arena.region]
        end += arena.size_bytes
    assert end == program.arena_bytes
    for buffer in program.buffers.values():
        holder = holder_of(program, buffer)
        assert buffer.offset_bytes + buffer.size_bytes <= holder.offset_bytes + holder.size_bytes
    assert memory_map(program).arenas[1].region == "AXI"


def holder_of(program: Program, buffer: Buffer):
    return next(a for a in reversed(program.arenas) if a.offset_bytes <= buffer.offset_bytes)


def test_a_tensor_across_two_memories_is_refused_by_the_check():
    profile = with_ram({"DTCM": 8192, "AXI": 8192})
    program = place_in_regions(maps([3000, 2500, 3600, 3000, 900]), profile)
    border = program.arenas[1].offset_bytes
    name, buffer = next(iter(program.buffers.items()))
    moved = replace(buffer, offset_bytes=border - 16)
    with pytest.raises(BuildFailed, match=f"{name} lies across"):
        check_placed(replace(program, buffers={**program.buffers, name: moved}))


def test_what_cannot_be_placed_names_step_tensors_bytes_and_memories():
    program = maps([3000, 9000, 3600, 3000, 900])
    with pytest.raises(DoesNotFit) as caught:
        place_in_regions(program, with_ram({"DTCM": 8192, "AXI": 8192}))
    names = list(program.buffers)
    text = str(caught.value)
    assert f"{names[1]} alone is larger than any region" in text
    assert f"{names[1]} 8.8 KiB" in text
    assert f"step '{program.steps[program.buffers[names[1]].first_step].name}'" in text
    assert "AXI 8.0 KiB, DTCM 3.5 KiB" in text or "DTCM 3.5 KiB, AXI 8.0 KiB" in text
    assert (caught.value.needed, caught.value.limit) == (9000, 8192 - READ_AHEAD_BYTES)
    assert caught.value.next_step
