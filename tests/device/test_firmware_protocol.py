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
    "edge read 0 97 arena", "edge load", "edge load 0", "edge load 0 00", "edge load 0 0g 00000000",
    "edge load 0 000 00000000", "edge load 32 00 d202ef8d", "edge load 0 00 00000000",
    "edge load 0 00 d202ef8", "edge load 0 00 d202ef8d0", "edge load 4294967295 00 d202ef8d",
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
    assert say(port, "edge begin") == b"e2-begin\r\nm-ready\r\n"
    assert say(port, "edge step 1").startswith(b"e-[Steps run in order")
    assert say(port, "edge step 0").startswith(b"e2-ticks-")
    assert say(port, "edge step 0").startswith(b"e-[Steps run in order")
    assert say(port, "edge step 1").startswith(b"e2-ticks-")


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
     "d202ef8d"]
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
