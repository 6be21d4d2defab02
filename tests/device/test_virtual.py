"""The virtual board: what it computes, what it counts, and what it refuses."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_image as tiny
import unicorn.unicorn_const as const

from edgecompress.device.harness import open_device
from edgecompress.device.ports.board import Board, Console
from edgecompress.device.ports.counting import count_instructions
from edgecompress.device.ports.virtual import VirtualPort
from edgecompress.device.protocol import Client
from edgecompress.errors import BadInput, DeviceFault, DeviceNotFound, DeviceTimeout, InvalidTarget
from edgecompress.target.registry import load_target
from edgecompress.target.schema import DeviceProfile

TinyImage = Callable[..., Path]


def sample(first: int = 0) -> np.ndarray:
    x = np.random.default_rng(3).integers(-100, 100, (1, 32)).astype(np.int8)
    x[0, 0] = first
    return x


@pytest.mark.parametrize(
    "target", ["cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "rv32imc"]
)
def test_every_core_gives_the_reference_output(tiny_image: TinyImage, target: str) -> None:
    x = sample()
    with open_device(tiny_image(target), load_target(target), "virtual") as session:
        assert np.array_equal(session.infer(x), tiny.output_reference(x))
        assert session.identity()["target"] == target


@pytest.mark.parametrize(
    ("first", "what"),
    [
        (tiny.READ_NOWHERE, "read outside the memory map: 4 bytes at 0x30000000"),
        (tiny.PAST_RAM, "read outside the memory map: 1 bytes at 0x20050000"),
        (tiny.WRITE_FLASH, "wrote to flash: 4 bytes at 0x00000100"),
        (tiny.JUMP_TO_RAM, "jumped into memory that is not for code"),
        (tiny.UNDEFINED, "raised an undefined instruction"),
        (tiny.READ_UART_ID, "read UART register 0x40004fe0"),
    ],
)
def test_leaving_the_map_is_a_fault(
    tiny_image: TinyImage, m7: DeviceProfile, first: int, what: str
) -> None:
    fault = _fault_of(tiny_image("cortex-m7"), m7, first)
    assert what in fault
    assert "pc 0x" in fault
    if first != tiny.JUMP_TO_RAM:
        assert "misbehave+" in fault


@pytest.mark.parametrize(
    ("first", "what"),
    [
        (tiny.READ_NOWHERE, "read outside the memory map: 4 bytes at 0x30000000"),
        (tiny.PAST_RAM, "read outside the memory map: 1 bytes at 0x20020000"),
        (tiny.WRITE_FLASH, "wrote to flash: 4 bytes at 0x00000100"),
        (tiny.JUMP_TO_RAM, "jumped into memory that is not for code"),
        (tiny.UNDEFINED, "raised an illegal instruction"),
        (tiny.READ_UART_ID, "read UART register 0x40004fe0"),
    ],
)
def test_risc_v_faults_are_seen_as_well(tiny_image: TinyImage, first: int, what: str) -> None:
    fault = _fault_of(tiny_image("rv32imc"), load_target("rv32imc"), first)
    assert what in fault
    if first != tiny.JUMP_TO_RAM:
        assert "misbehave+" in fault


def _fault_of(image: Path, profile: DeviceProfile, first: int) -> str:
    """What the board says, quickly, of the misbehaviour `first` asks for."""
    with open_device(image, profile) as session:
        started = time.monotonic()
        with pytest.raises(DeviceFault) as caught:
            session.infer(sample(first))
        assert time.monotonic() - started < 3
    return str(caught.value)


def test_an_endless_loop_is_a_timeout_and_the_board_still_switches_off(
    tiny_image: TinyImage, m7: DeviceProfile
) -> None:
    session = open_device(tiny_image("cortex-m7"), m7, run_timeout_s=0.3)
    with pytest.raises(DeviceTimeout, match=r"silent for 0\.3 s after 'edge run'"):
        session.infer(sample(tiny.LOOP))
    started = time.monotonic()
    session.close()
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("target", ["cortex-m0plus", "cortex-m7", "rv32imc"])
def test_native_and_python_counters_agree_exactly(tiny_image: TinyImage, target: str) -> None:
    counts = {}
    for kind in ("native", "python"):
        port = VirtualPort(tiny_image(target) / "firmware.elf", load_target(target), counter=kind)
        try:
            assert port.board.counter.kind == kind
            client = Client(port)
            client.synchronize()
            client.load_input(sample().tobytes())
            run_ticks = [client.run() for _ in range(3)]
            client.begin()
            counts[kind] = (run_ticks, client.step(0), client.step(1))
        finally:
            port.close()
    assert counts["native"] == counts["python"]
    run_ticks, first, second = counts["native"]
    assert len(set(run_ticks)) == 1
    # The timer's readings and the loop over the steps cost a few instructions, the steps the rest.
    assert abs(first + second - run_ticks[0]) < 40


def test_qemu_counts_the_same_within_one_tick(tiny_image: TinyImage, m7: DeviceProfile) -> None:
    if shutil.which("qemu-system-arm") is None:
        pytest.skip("qemu-system-arm is not installed")
    image, x = tiny_image("cortex-m7"), sample()
    with open_device(image, m7, "virtual") as board, open_device(image, m7, "qemu") as qemu:
        assert np.array_equal(board.infer(x), qemu.infer(x))
        exact = board.measure(x).instructions
        other = qemu.measure(x)
    assert exact is not None
    assert other.instructions is not None
    assert other.label == "emulated instructions"
    assert other.latency_us is None
    assert abs(other.instructions - exact) <= 40


def test_the_m55_runs_on_qemu(tiny_image: TinyImage) -> None:
    if shutil.which("qemu-system-arm") is None:
        pytest.skip("qemu-system-arm is not installed")
    profile, x = load_target("cortex-m55"), sample()
    with open_device(tiny_image("cortex-m55"), profile, "qemu") as session:
        assert np.array_equal(session.infer(x), tiny.output_reference(x))
        instructions = session.measure(x).instructions
    assert instructions is not None
    assert instructions > 40


def test_the_stack_mark_sees_a_deep_call(tiny_image: TinyImage, m7: DeviceProfile) -> None:
    with open_device(tiny_image("cortex-m7"), m7) as session:
        session.infer(sample())
        before = session.stack_high_water()
        session.infer(sample(tiny.USE_STACK))
        after = session.stack_high_water()
    assert before is not None
    assert after is not None
    assert 2000 <= after < before + 2100


def test_the_image_is_found_too_big_for_a_smaller_device(
    tiny_image: TinyImage, m7: DeviceProfile
) -> None:
    small = m7.model_dump()
    small["regions"][0]["size"] = 4096
    with pytest.raises(BadInput, match="outside the flash"):
        open_device(tiny_image("cortex-m7"), DeviceProfile.model_validate(small))


def test_a_map_that_cannot_be_enforced_exactly_is_refused(
    tiny_image: TinyImage, m7: DeviceProfile
) -> None:
    odd = m7.model_dump()
    odd["regions"][1]["size"] = 320 * 1024 + 512
    with pytest.raises(InvalidTarget, match="whole 4096 byte pages"):
        open_device(tiny_image("cortex-m7"), DeviceProfile.model_validate(odd))


def test_a_core_without_a_virtual_board_says_which_there_are(tiny_image: TinyImage) -> None:
    with pytest.raises(DeviceNotFound, match=r"cortex-m55 has no virtual board.*--device qemu"):
        open_device(tiny_image("cortex-m55"), load_target("cortex-m55"))


def test_two_boards_run_side_by_side(tiny_image: TinyImage, m7: DeviceProfile) -> None:
    image = tiny_image("cortex-m7")
    with open_device(image, m7) as one, open_device(image, m7) as two:
        x, y = sample(5), sample(-5)
        one.load(x)
        assert np.array_equal(two.infer(y), tiny.output_reference(y))
        assert np.array_equal(one.infer(x), tiny.output_reference(x))


def test_thumb_instructions_are_told_from_their_first_halfword() -> None:
    # nop; b.w (f000 b800); blx-like e8xx prefix; nop
    code = bytes.fromhex("00bf00f000b82de9f04100bf")
    assert count_instructions(code) == 4


def test_risc_v_instructions_are_told_from_their_lowest_bits() -> None:
    # c.nop; addi a0, a0, 1; ret (compressed); lui a0, 0x3
    assert count_instructions(bytes.fromhex("010013051500828037350000"), "riscv") == 4


class _Script(Console):
    """Types one text and switches the board off when the firmware wants more."""

    def __init__(self, text: bytes) -> None:
        self.left = bytearray(text)
        self.board: Board | None = None

    def available(self) -> bool:
        return bool(self.left)

    def receive(self, *, wait: bool) -> int | None:
        if self.left and not wait:
            return self.left.pop(0)
        if self.board is not None and not self.left:
            self.board.stop()
        return None


# Not on a core with IT blocks: what they skip is counted, and not traced.
@pytest.mark.parametrize("target", ["cortex-m0plus", "rv32imc"])
def test_counting_by_blocks_is_counting_one_by_one(tiny_image: TinyImage, target: str) -> None:
    script = _Script(b"edge run%edge begin%edge step 0%edge step 1%")
    board = Board(tiny_image(target) / "firmware.elf", load_target(target), script)
    script.board = board
    clock = board._symbols.functions["port_ticks"]
    executed = 0
    readings: list[tuple[int, int]] = []

    def trace(_engine: object, address: int, _size: int, _state: object) -> None:
        nonlocal executed
        executed += 1
        if address == clock:
            readings.append((executed, board.counter.instructions))

    board.engine.hook_add(const.UC_HOOK_CODE, trace)
    board.run()
    assert board.fault is None
    assert len(readings) >= 6
    one_by_one, by_blocks = np.diff(np.array(readings), axis=0).T
    assert one_by_one.tolist() == by_blocks.tolist()
