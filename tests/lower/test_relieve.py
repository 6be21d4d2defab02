"""Scratch is given up where it decides the arena's size, and only where that pays."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import tvm

from edgecompress.lower.isa.interface import Cost, Implementation
from edgecompress.lower.memory.lifetimes import with_lifetimes
from edgecompress.lower.passes.specialize import choose, install, relieve
from edgecompress.lower.program import Argument, Buffer, Program, Step
from edgecompress.records import TensorSpec


def chain(*sizes: int) -> Program:
    """Steps from one tensor of `sizes` bytes to the next."""
    names = [f"t{index}" for index in range(len(sizes))]
    buffers = {
        name: Buffer(name, (1, size), "int8", size, 0, 0)
        for name, size in zip(names, sizes, strict=True)
    }
    steps = tuple(
        Step(f"step_{index}", "none", (Argument("buffer", before), Argument("buffer", after)),
             None, "dense")
        for index, (before, after) in enumerate(pairwise(names))
    )  # fmt: skip
    ends = [
        TensorSpec(
            name=names[index], shape=(1, sizes[index]), dtype="int8", scale=1.0, zero_point=0
        )
        for index in (0, -1)
    ]
    program = Program(
        "chain", steps, buffers, (), tvm.IRModule({}), (ends[0],), (ends[1],), (names[0],),
        (names[-1],),
    )  # fmt: skip
    return with_lifetimes(program)


def offer(symbol: str, cycles: int, scratch_bytes: int) -> Implementation:
    return Implementation(
        symbol,
        (np.zeros(4, np.int32),),
        Cost(cycles, cycles, 0),
        "a test",
        assembly={symbol: "    nop\n"},
        scratch_bytes=scratch_bytes,
    )


def scratch(program, offers, optimize="balanced") -> list[int]:
    relieved = relieve(program, offers, choose(offers, optimize), optimize)
    return [item.scratch_bytes for item in relieved]


def test_only_the_fullest_step_gives_up_its_scratch():
    program = chain(640, 128, 128)
    offers = [[offer("fast", 73000, 1280), offer("lean", 75000, 0)],
              [offer("fast", 15000, 256), offer("lean", 17000, 0)]]  # fmt: skip
    assert scratch(program, offers) == [0, 256]
    assert scratch(program, offers, "speed") == [1280, 256]
    before = install(program, choose(offers)).arena_bytes
    after = install(program, relieve(program, offers, choose(offers))).arena_bytes
    assert (before, after) == (2048, 768)


def test_time_is_worth_more_than_a_few_bytes():
    program = chain(640, 128)
    assert scratch(program, [[offer("fast", 50000, 64), offer("lean", 90000, 0)]]) == [64]


def test_two_full_steps_are_relieved_together():
    """The arena shrinks only when both have given up their scratch."""
    program = chain(640, 640, 640, 640)
    offers = [[offer("fast", 50000, 2000), offer("lean", 51000, 0)]] * 3
    assert scratch(program, offers) == [0, 0, 0]


def test_a_step_nothing_is_offered_for():
    program = chain(8, 9000, 8)
    assert relieve(program, [[], []], [None, None]) == [None, None]
