"""MVE kernels read and write nothing beside their tensors, and keep the registers they must."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mve_board import Call, check, needs_qemu, run
from mve_cases import (
    Case,
    addition_cases,
    conv2d_add_cases,
    conv2d_cases,
    dense_cases,
    depthwise_cases,
    pool_cases,
)

from edgecompress.lower.isa.dsp.asm import routine
from edgecompress.lower.isa.interface import Cost, Implementation
from edgecompress.lower.isa.mve.generators import GENERATORS

WHOLE = np.arange(48, dtype=np.int8)  # ends with a block of 32 bytes
QUIET = ["ldrb r12, [r0, #47]", "ldr r12, [r1]", "movs r0, #0", "strb r0, [r2]", "bx lr"]


def own(*lines: str, name: str = "under_test") -> Call:
    """`f(x, constant, y)` of `lines`, with 48 bytes of input, 16 of constant, 1 of output."""
    implementation = Implementation(
        name, (np.zeros(4, np.int32),), Cost(0, 0, 0), "a test",
        assembly={name: routine(name, lines)},
    )  # fmt: skip
    return Call(implementation, [WHOLE], (1,))


@needs_qemu
@given(
    cases=st.lists(
        st.one_of(
            conv2d_cases(), conv2d_add_cases(), dense_cases(), depthwise_cases(),
            addition_cases(), pool_cases(),
        ),
        min_size=24, max_size=24,
    )
)  # fmt: skip
@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_nothing_beside_the_tensors_is_touched(cases: list[Case]) -> None:
    taken = [
        case
        for case in cases
        if any(generator.implement(case[0], tuple(case[2])) for generator in GENERATORS)
    ]
    assert len(taken) >= len(cases) // 2
    check(GENERATORS, taken, guarded=True)


@needs_qemu
def test_the_guard_lets_a_kernel_read_its_own() -> None:
    (result,) = run([own(*QUIET)], guarded=True)
    assert result.output.tolist() == [0]


@needs_qemu
@pytest.mark.parametrize(
    "trespass",
    [
        "ldrb r12, [r0, #48]",
        "ldrb r12, [r0, #-17]",
        "ldr r12, [r1, #16]",
        "strb r12, [r0]",
        "str r12, [r1]",
        "strb r12, [r2, #32]",
        "vldrb.u8 q0, [r0, #40]",
    ],
)
def test_the_guard_sees_a_byte_too_many(trespass: str) -> None:
    with pytest.raises(AssertionError, match="call 1 left its memory"):
        run([own(*QUIET), own(trespass, *QUIET, name="trespasser")], guarded=True)


@needs_qemu
@pytest.mark.parametrize("register", ["q4", "q5", "q6", "q7"])
def test_a_lost_vector_register_is_seen(register: str) -> None:
    call = own(f"veor {register}, {register}, {register}", *QUIET)
    with pytest.raises(AssertionError, match="lost a register"):
        run([call])
