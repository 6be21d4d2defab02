"""The firmware's side of the protocol, byte for byte, as the genuine MLPerf Tiny runner sees it."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_image as tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecompress.device.ports.base import Port
from edgecompress.device.ports.process import open_process
from edgecompress.device.ports.virtual import VirtualPort
from edgecompress.errors import DeviceNotFound
from edgecompress.target.schema import DeviceProfile

TinyImage = Callable[..., Path]


@pytest.fixture(params=["virtual", "process"])
def port(
    request: pytest.FixtureRequest, tiny_image: TinyImage, m7: DeviceProfile, x86: DeviceProfile
) -> Iterator[Port]:
    opened = open_tiny(request.param, tiny_image, m7, x86)
    yield opened
    opened.close()


def open_tiny(kind: str, image: TinyImage, m7: DeviceProfile, x86: DeviceProfile) -> Port:
    if kind == "virtual":
        return VirtualPort(image("cortex-m7") / "firmware.elf", m7)
    try:
        return open_process(image("x86-64") / "firmware", x86)
    except DeviceNotFound as error:
        pytest.skip(str(error))


def read_until_ready(port: Port) -> bytes:
    answer, deadline = b"", time.monotonic() + 10
    while not answer.endswith(b"m-ready\r\n"):
        answer += port.read(0.1)
        assert time.monotonic() < deadline, answer
    return answer


def say(port: Port, command: str) -> bytes:
    port.write(command.encode() + b"%", 5)
    return read_until_ready(port)


def without_time(answer: bytes) -> list[str]:
    lines = answer.decode().split("\r\n")
    assert lines.pop() == ""
    for index, line in enumerate(lines):
        if line.startswith("m-lap-us-"):
            assert line.removeprefix("m-lap-us-").isdigit()
            lines[index] = "m-lap-us-T"
    return lines


def test_the_runners_conversation(port: Port) -> None:
    boot = read_until_ready(port)
    assert without_time(boot) == [
        "m-timestamp-mode-performance", "m-lap-us-T", "m-init-done", "m-ready",
    ]  # fmt: skip
    assert say(port, "name") == b"m-name-dut-[edgecompress]\r\nm-ready\r\n"
    assert without_time(say(port, "timestamp")) == ["m-lap-us-T", "m-ready"]
    assert say(port, "help").startswith(b"m-commands-[name timestamp profile db infer results help")
    assert say(port, "   ") == say(port, "") == b"m-ready\r\n"
    assert say(port, "profile") == (
        b"m-profile-[ULPMark for tinyML Firmware V0.0.1]\r\nm-model-[tiny01]\r\nm-ready\r\n"
    )
    x = np.arange(-16, 16, dtype=np.int8)
    assert say(port, "db load 32") == b"m-[Expecting 32 bytes]\r\nm-ready\r\n"
    assert say(port, f"db {x.tobytes()[:31].hex()}") == b"m-ready\r\n"
    assert say(port, f"db {x.tobytes()[31:].hex()}") == b"m-load-done\r\nm-ready\r\n"
    expected = (tiny.output_reference(x.reshape(1, 32)).reshape(-1).astype(int) + 128) / 256
    results = "m-results-[" + ",".join(f"{value + 1e-9:.3f}" for value in expected) + "]"
    assert without_time(say(port, "infer 3 1")) == [
        "m-warmup-start-1", "m-warmup-done", "m-infer-start-3", "m-lap-us-T", "m-lap-us-T",
        "m-infer-done", results, "m-ready",
    ]  # fmt: skip
    assert without_time(say(port, "results")) == [results, "m-ready"]


def test_defaults_of_infer_are_one_and_ten(port: Port) -> None:
    read_until_ready(port)
    lines = without_time(say(port, "infer"))
    assert lines[0] == "m-warmup-start-10"
    assert lines[2] == "m-infer-start-1"


REFUSED = [
    "frobnicate", "nam", "names", "edge inf", "edge infos", "db", "db load",
    "db load 0", "db load 33", "db load -1", "db load 9999999999",
    "db load 1x", "db 00", "infer 0", "infer x", "infer 1 x", "infer 4294967297", "edge",
    "edge frobnicate", "edge step", "edge step 2", "edge step -1", "edge step 0", "edge crc",
    "edge crc 0", "edge crc 0 1", "edge crc 0 1 flash", "edge crc 0 33 in", "edge crc 33 0 in",
    "edge crc 96 1 arena", "edge crc 4294967295 2 arena", "edge crc 2 4294967295 arena",
    "edge read 0 97 arena", "edge load", "edge load 33", "edge load 0 0g", "edge load 0 000",
    "edge load 32 00", "edge load 4294967295 00", "edge #", "edge # 1 info",
    "edge #0000000 1 info", "edge #zzzzzzzz 1 info", "edge #00000000 1 info", "edge crc 0 1 RAM",
]  # fmt: skip


def test_malformed_commands_are_refused_in_one_line(port: Port) -> None:
    read_until_ready(port)
    for command in REFUSED:
        lines = without_time(say(port, command))
        assert len(lines) == 2, command
        assert lines[0].startswith("e-["), command
        assert lines[0].endswith("]"), command
    assert say(port, "name") == b"m-name-dut-[edgecompress]\r\nm-ready\r\n"


def test_a_damaged_db_line_stores_nothing(port: Port) -> None:
    read_until_ready(port)
    say(port, "db load 32")
    assert say(port, "db " + "11" * 20 + "zz").startswith(b"e-[Invalid hex digit")
    assert say(port, "db 1").startswith(b"e-[Insufficent")
    say(port, "db " + "22" * 32)
    stored = zlib.crc32(bytes([0x22] * 32))
    assert say(port, "edge crc 0 32 in") == f"e2-crc-{stored:08x}\r\nm-ready\r\n".encode()


def test_a_line_past_the_buffer_is_skipped_whole(port: Port) -> None:
    read_until_ready(port)
    longest = "edge crc 0 0 in".ljust(160)
    assert say(port, longest) == b"e2-crc-00000000\r\nm-ready\r\n"
    assert say(port, longest + " ") == (b"e-[Command too long]\r\nm-ready\r\n")
    assert say(port, "name" * 5000).startswith(b"e-[Command too long")
    assert say(port, "name").startswith(b"m-name-dut")


def test_steps_must_be_taken_in_order(port: Port) -> None:
    read_until_ready(port)
    assert say(port, "edge begin") == b"m-ready\r\n"
    assert say(port, "edge step 1").startswith(b"e-[Steps run in order")
    assert say(port, "edge step 0").startswith(b"e2-started\r\ne2-ticks-")
    assert say(port, "edge step 0").startswith(b"e-[Steps run in order")
    assert say(port, "edge step 1").startswith(b"e2-started\r\ne2-ticks-")


def framed(sequence: int, command: str) -> str:
    body = f"{sequence} {command}"
    return f"edge #{zlib.crc32(body.encode()).to_bytes(4, 'little').hex()} {body}"


def unframed(answer: bytes, sequence: int) -> bytes:
    """The reply before its trailer, which must be right."""
    reply, trailer = answer.split(b"e2-end-", 1)
    covered = reply + b"e2-end-%d-" % sequence
    assert trailer == b"%d-%08x\r\nm-ready\r\n" % (sequence, zlib.crc32(covered))
    return reply


def test_framed_commands_run_once_and_in_order(port: Port) -> None:
    read_until_ready(port)
    assert unframed(say(port, framed(70, "info")), 70) == b"e-[Out of sequence]\r\n"
    assert unframed(say(port, framed(70, "sync")), 70) == b""
    assert unframed(say(port, framed(71, "begin")), 71) == b""
    first = unframed(say(port, framed(72, "step 0")), 72)
    assert first.startswith(b"e2-started\r\ne2-ticks-")
    again = unframed(say(port, framed(72, "step 0")), 72)
    assert again == first.removeprefix(b"e2-started\r\n"), "told again, not run again"
    assert unframed(say(port, framed(74, "step 1")), 74) == b"e-[Out of sequence]\r\n"
    assert unframed(say(port, framed(73, "step 1")), 73).startswith(b"e2-started\r\n")
    # What would be left of a framed command whose middle was lost.
    assert say(port, "edge run") == b"e-[Out of sequence]\r\nm-ready\r\n"
    assert say(port, "name") == b"m-name-dut-[edgecompress]\r\nm-ready\r\n"


def test_a_step_refused_is_refused_again(port: Port) -> None:
    read_until_ready(port)
    say(port, framed(9, "sync"))
    assert unframed(say(port, framed(10, "run")), 10).startswith(b"e2-started\r\n")
    for _ in range(2):
        assert unframed(say(port, framed(11, "step 0")), 11) == b"e-[Steps run in order]\r\n"


def test_a_frame_with_any_bit_flipped_changes_nothing(port: Port) -> None:
    read_until_ready(port)
    say(port, framed(9, "sync"))
    assert unframed(say(port, framed(10, "load 0 0102")), 10) == b"e2-loaded-2\r\n"
    good = framed(11, "load 0 ffff").encode()
    for index in range(len("edge "), len(good)):
        bad = bytearray(good)
        bad[index] ^= 1
        port.write(bytes(bad) + b"%", 5)
        answer = read_until_ready(port)
        if b"%" in bad:
            answer += read_until_ready(port)
        assert b"e2-loaded" not in answer
    stored = unframed(say(port, framed(11, "crc 0 2 in")), 11)
    assert stored == b"e2-crc-%08x\r\n" % zlib.crc32(b"\x01\x02")


def test_control_bytes_and_line_ends_between_commands_are_ignored(port: Port) -> None:
    read_until_ready(port)
    port.write(b"\r\n\x00na\x07me%\r\n", 5)
    assert read_until_ready(port) == b"m-name-dut-[edgecompress]\r\nm-ready\r\n"


@pytest.fixture(scope="module")
def fuzzed(tiny_image: TinyImage, m7: DeviceProfile, x86: DeviceProfile) -> Iterator[Port]:
    """The virtual board: one byte outside its buffers and it faults."""
    port = open_tiny("virtual", tiny_image, m7, x86)
    read_until_ready(port)
    yield port
    port.close()


WORDS = st.sampled_from(
    ["edge", "db", "load", "crc", "read", "begin", "out", "stack", "info", "in", "out", "arena",
     "0", "1", "31", "32", "48", "4294967295", "99999999999999999999", "-1", "00ff", "g",
     "step", "FLASH", "infer", "results", "#d202ef8d", framed(0, "info"), framed(1, "load 0 0")]
)  # fmt: skip


@given(
    noise=st.one_of(
        st.lists(WORDS, max_size=7).map(lambda words: " ".join(words).encode()),
        st.binary(max_size=400).map(lambda data: data.replace(b"%", b"")),
    )
)
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_command_breaks_the_firmware(fuzzed: Port, noise: bytes) -> None:
    fuzzed.write(noise + b"%", 5)
    answer = read_until_ready(fuzzed)
    fuzzed.check()
    assert answer.count(b"m-ready\r\n") == 1
    assert len(answer) < 1000
    fuzzed.write(b"name%", 5)
    assert read_until_ready(fuzzed) == b"m-name-dut-[edgecompress]\r\nm-ready\r\n"
