"""The kernels' test board counts exactly and sees what code must not do."""

from __future__ import annotations

import numpy as np
import pytest
from board import CORES, Board

from edgecompress.lower.isa.dsp.asm import routine
from edgecompress.lower.isa.interface import Cost, Implementation


def _implementation(symbol: str, lines: list[str], scratch_bytes: int = 0) -> Implementation:
    return Implementation(
        symbol=symbol,
        constants=(np.arange(4, dtype=np.int32),),
        cost=Cost(0, 0, 0),
        description="a test",
        assembly={symbol: routine(symbol, lines)},
        scratch_bytes=scratch_bytes,
    )


# x[4] + constants[4] -> y[4], with scratch as the third argument
_ADD = ["push {r4-r6, lr}", "movs r6, #4", "1:", "ldrsb r4, [r0], #1", "ldr r5, [r1], #4",
        "add r4, r5", "str r4, [r2], #4", "strb r4, [r3], #1", "subs r6, #1", "bne 1b",
        "pop {r4-r6, pc}"]  # fmt: skip


@pytest.mark.parametrize("core", CORES)
def test_result_and_count(core):
    board = Board([_implementation("add_four", _ADD, scratch_bytes=16)], core)
    outcome = board.run(0, [np.array([1, -2, 3, 127], np.int8)], (4,))
    assert outcome.output.tolist() == [1, -1, 5, -126]
    assert np.frombuffer(outcome.scratch, np.int32).tolist() == [1, -1, 5, 130]
    assert outcome.instructions == 2 + 4 * 7 + 1
    assert outcome.stack_bytes == 16
    assert board.code_bytes("add_four") >= 20


def test_overlapping_output():
    board = Board([_implementation("add_four", _ADD, scratch_bytes=16)])
    for distance in (-3, 0, -16):
        outcome = board.run(0, [np.array([9, 8, 7, 6], np.int8)], (4,), overlap=distance)
        assert outcome.output.tolist() == [9, 9, 9, 9]


@pytest.mark.parametrize(
    "lines",
    [
        ["strb r0, [r2, #4]", "bx lr"],
        ["strb r0, [r2, #-1]", "bx lr"],
        ["strb r0, [r0]", "bx lr"],
        ["mov r7, r0", "bx lr"],
        ["add sp, #4", "bx lr"],
    ],
)
def test_trespass_is_seen(lines):
    board = Board([_implementation("bad", lines)])
    with pytest.raises(AssertionError):
        board.run(0, [np.array([1, 2, 3, 4], np.int8)], (4,))
