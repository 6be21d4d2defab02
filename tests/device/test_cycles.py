"""Words and cycles from exact block counts: the tables, the recording, and both counters alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgecompress.device.cycles import MODELS, BlockCount, CortexM4, count_work, disassemble
from edgecompress.device.harness import open_device
from edgecompress.device.ports.virtual import VirtualPort
from edgecompress.device.protocol import Client
from edgecompress.target.registry import load_target
from edgecompress.target.schema import DeviceProfile

TinyImage = Callable[..., Path]

# Assembled by GNU as for Thumb-2: text, machine code, words, Cortex-M4 cycles.
CASES = [
    ("adds r0, r0, r1", "4018", 1, 1),
    ("smlad r3, r0, r1, r2", "20fb0123", 1, 1),
    ("ldr r0, [r1], #4", "51f8040b", 1, 2),
    ("ldrsb.w r0, [r1]", "91f90000", 1, 2),
    ("str r0, [r1]", "0860", 1, 1),
    ("ldr r2, [r1]; ldr r3, [r1]", "0a680b68", 2, 3),
    ("str r0, [r1]; ldr r3, [r1]", "08600b68", 2, 2),
    ("ldr r2, [r1]; adds r0, r0, r1; ldr r3, [r1]", "0a6840180b68", 3, 5),
    ("ldrd r2, r3, [r0]", "d0e90023", 2, 3),
    ("strd r2, r3, [r0]", "c0e90023", 2, 3),
    ("push {r4-r8, lr}", "2de9f041", 6, 7),
    ("push {lr}", "00b5", 1, 2),
    ("ldm r2!, {r3-r8}", "b2e8f801", 6, 7),
    ("stm r0!, {r1, r2}", "06c0", 2, 3),
    ("vpush {d8-d9}", "2ded048b", 4, 5),
    ("vldr s0, [r0]", "90ed000a", 1, 2),
    ("vldr d0, [r0]", "90ed000b", 2, 3),
    ("sdiv r2, r2, r3", "92fbf3f2", 1, 7),
    ("it ne; movne r0, r1", "18bf0846", 2, 2),
]


@pytest.mark.parametrize(("text", "code", "words", "cycles"), CASES, ids=[c[0] for c in CASES])
def test_straight_code_is_charged_by_the_table(
    text: str, code: str, words: int, cycles: int
) -> None:
    decoded = disassemble(bytes.fromhex(code))
    assert sum(instruction.words for instruction in decoded) == words
    assert CortexM4().cycles(decoded, taken=False) == (cycles, cycles)
    assert len(decoded) == text.count(";") + 1


@pytest.mark.parametrize(
    ("code", "untaken", "taken"),
    [
        ("fad1", 1, 3),  # bne
        ("fae7", 3, 3),  # b: never falls through
        ("7047", 3, 3),  # bx lr
        ("00f000f8", 3, 3),  # bl
        ("10b1", 1, 3),  # cbz
        ("10bd", 5, 5),  # pop {r4, pc}: 1 + 2, and the refill
    ],
)
def test_a_taken_branch_costs_three(code: str, untaken: int, taken: int) -> None:
    decoded = disassemble(bytes.fromhex(code))
    assert CortexM4().cycles(decoded, taken=True) == (taken, taken)
    if untaken != taken:
        assert CortexM4().cycles(decoded, taken=False) == (untaken, untaken)


def test_the_loop_of_the_module_docstring() -> None:
    code = bytes.fromhex("51f8040bfad1")
    work = count_work([BlockCount(0x100, 6, 10, 9)], lambda address, size: code[:size])
    assert work.instructions == work.words == 20
    assert work.cycles["cortex-m4"] == (48, 48)


def test_the_m7_pairs_what_is_independent() -> None:
    def low_and_high(code: str) -> tuple[int, int]:
        return MODELS["cortex-m7"].cycles(disassemble(bytes.fromhex(code)), taken=False)

    assert low_and_high("40189a18") == (1, 2)  # adds r0, r0, r1; adds r2, r3, r2
    assert low_and_high("40180118") == (2, 2)  # adds r0, r0, r1; adds r1, r0, r0
    assert low_and_high("0a680b68") == (2, 2)  # two loads
    assert low_and_high("0a689b18") == (2, 3)  # ldr r2; adds r3, r3, r2: loaded, used at once
    assert low_and_high("0a684018") == (1, 2)  # ldr r2; adds r0, r0, r1
    assert low_and_high("20fb012324fb0145") == (2, 2)  # two multiplications
    assert low_and_high("b2e8f801") == (3, 6)  # ldm of six
    for code in ("fad1", "92fbf3f2", "2de9f041", "d0e90023"):
        low, high = low_and_high(code)
        assert 0 < low <= high


def test_undecodable_halfwords_still_count() -> None:
    # 0xffff 0xffff is a 32-bit pattern without an instruction; nop follows.
    assert len(disassemble(bytes.fromhex("ffffffff00bf"))) == 2


def sample() -> np.ndarray:
    return np.random.default_rng(3).integers(-100, 100, (1, 32)).astype(np.int8)


@pytest.mark.parametrize("target", ["cortex-m0plus", "cortex-m4", "cortex-m7", "cortex-m33"])
def test_both_counters_record_the_same_blocks(tiny_image: TinyImage, target: str) -> None:
    recorded = {}
    for kind in ("native", "python"):
        port = VirtualPort(tiny_image(target) / "firmware.elf", load_target(target), counter=kind)
        try:
            client = Client(port)
            client.synchronize()
            client.load_input(sample().tobytes())
            assert port.board.counter.take_blocks() == ()
            client.run()
            recorded[kind] = port.board.counter.take_blocks()
            client.run()
            assert port.board.counter.take_blocks() == recorded[kind]
        finally:
            port.close()
    assert recorded["native"] == recorded["python"]
    assert recorded["native"]
    assert all(0 <= block.taken <= block.entries for block in recorded["native"])


def test_work_is_the_inference_without_the_timer_and_the_protocol(
    tiny_image: TinyImage, m7: DeviceProfile
) -> None:
    with open_device(tiny_image("cortex-m7"), m7) as session:
        session.load(sample())
        assert session.take_work() is None
        ticks = session.run()
        work = session.take_work()
        session.identity()
        assert session.take_work() is None
    assert work is not None
    assert 0 < ticks - work.instructions < 60
    assert work.words >= work.instructions
    low, high = work.cycles["cortex-m7"]
    assert work.instructions / 2 <= low <= high
    assert work.cycles["cortex-m4"][0] > work.instructions


def test_a_measurement_carries_words_and_the_cores_own_estimate(tiny_image: TinyImage) -> None:
    with open_device(tiny_image("cortex-m4"), load_target("cortex-m4")) as session:
        measured = session.measure(sample(), runs=2, warmup=1)
    assert measured.instructions is not None
    assert measured.words is not None
    assert measured.cycles is not None
    assert measured.cycles.model == CortexM4.name
    assert measured.cycles.low == measured.cycles.high
    per_layer = [layer.cycles for layer in measured.layers]
    assert all(cycles is not None for cycles in per_layer)
    assert sum(cycles.low for cycles in per_layer if cycles) <= measured.cycles.low + 40
    with open_device(tiny_image("cortex-m3"), load_target("cortex-m3")) as session:
        assert session.measure(sample()).cycles is None
