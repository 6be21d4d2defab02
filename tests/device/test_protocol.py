"""The client against devices that lie, stammer, flood and fall silent."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress.device.ports.base import Clock
from edgecompress.device.protocol import ANSWER_LIMIT_BYTES, Client
from edgecompress.errors import DeviceTimeout, DeviceTrouble, ProtocolError

READY = b"m-ready\r\n"


class ScriptedPort:
    """Answers every command with what `answer` makes of it; an iterator may never end."""

    kind = "serial"
    clock = Clock("measured on device")
    name = "scripted device"

    def __init__(self, answer: Callable[[bytes], bytes], repeat: bytes = b"") -> None:
        self._answer, self._repeat = answer, repeat
        self._waiting = bytearray()
        self.read_bytes = 0

    def write(self, data: bytes, timeout_s: float) -> None:
        self._waiting += self._answer(data)

    def read(self, timeout_s: float) -> bytes:
        if not self._waiting:
            self._waiting += self._repeat
        data = bytes(self._waiting[:4096])
        del self._waiting[:4096]
        self.read_bytes += len(data)
        return data

    def check(self) -> None: ...

    def close(self) -> None: ...


def client(answer: bytes, repeat: bytes = b"") -> Client:
    return Client(ScriptedPort(lambda _command: answer, repeat), timeout_s=0.05, run_timeout_s=0.05)


def test_lines_before_ready_are_the_answer() -> None:
    assert client(b"one\r\ntwo\r\n" + READY).command("x") == ["one", "two"]


def test_silence_is_a_timeout_naming_the_command() -> None:
    with pytest.raises(DeviceTimeout, match=r"silent for 0\.05 s after 'edge run'"):
        client(b"").run()


def test_an_answer_without_ready_is_a_timeout() -> None:
    with pytest.raises(DeviceTimeout):
        client(b"e2-ticks-5\r\n").run()


def test_a_refusal_carries_the_devices_words() -> None:
    with pytest.raises(ProtocolError, match="refused 'edge run': Unknown command"):
        client(b"e-[Unknown command: edge]\r\n" + READY).run()


@pytest.mark.parametrize("flood", [b"A" * 4096, b"spam\r\n" * 500])
def test_an_endless_answer_is_cut_off(flood: bytes) -> None:
    talker = client(b"", repeat=flood)
    with pytest.raises(ProtocolError, match=r"longer than|more than"):
        talker.command("name")
    assert talker.port.read_bytes < 2 * ANSWER_LIMIT_BYTES


def test_an_endless_talker_is_never_synchronized_with() -> None:
    with pytest.raises(ProtocolError, match="without its name"):
        client(b"", repeat=b"spam\r\n" * 500).synchronize(patience_s=5)


@pytest.mark.parametrize(
    "line",
    [b"e2-ticks-", b"e2-ticks--5", b"e2-ticks-1_0", b"e2-ticks-+1", b"e2-ticks-" + b"9" * 30,
     b"e2-ticks-\xd9\xa1", b"hello", b""],
)  # fmt: skip
def test_numbers_outside_the_grammar(line: bytes) -> None:
    with pytest.raises(ProtocolError, match="outside the protocol"):
        client(line + b"\r\n" + READY).run()


def data_answer(data: bytes, crc: int) -> bytes:
    return f"e2-data-{len(data)}-{data.hex()}\r\ne2-crc-{crc:08x}\r\n".encode() + READY


def test_bytes_with_a_right_checksum() -> None:
    data = bytes(range(60))
    assert client(data_answer(data, zlib.crc32(data))).read(0, 60, "arena") == data


def test_a_corrupted_byte_is_found() -> None:
    data = bytes(range(60))
    with pytest.raises(ProtocolError, match="corrupts data"):
        client(data_answer(b"\x01" + data[1:], zlib.crc32(data))).read(0, 60, "arena")


def test_missing_bytes_are_found() -> None:
    data = bytes(range(59))
    with pytest.raises(ProtocolError, match=r"gave 59 bytes .* 60 were asked for"):
        client(data_answer(data, zlib.crc32(data))).read(0, 60, "arena")


def test_a_line_whose_length_lies_is_found() -> None:
    answer = b"e2-data-4-010203\r\ne2-crc-00000000\r\n" + READY
    with pytest.raises(ProtocolError, match="outside the protocol"):
        client(answer).read(0, 4, "in")


def test_input_the_device_did_not_take_is_found() -> None:
    with pytest.raises(ProtocolError, match="holds 3 input bytes after 4 were sent"):
        client(b"e2-loaded-3\r\n" + READY).load_input(b"abcd")


def test_another_firmware_abi_is_refused() -> None:
    with pytest.raises(ProtocolError, match="speaks firmware ABI 2, this tool 1"):
        client(b"e2-info-abi-[2]\r\n" + READY).identity()


def test_an_identity_with_a_field_missing_is_refused() -> None:
    with pytest.raises(ProtocolError, match="lacks or garbles 'model'"):
        client(b"e2-info-abi-[1]\r\ne2-info-steps-[4]\r\n" + READY).identity()


def test_old_chatter_is_skipped_when_synchronizing() -> None:
    talker = client(b"half a li\r\nm-ready\r\nm-ready\r\nm-name-dut-[x]\r\n" + READY)
    talker.synchronize(patience_s=1)


@given(answer=st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_no_answer_gets_past_the_error_tree(answer: bytes) -> None:
    talker = client(answer + b"\r\n" + READY)
    for ask in (
        talker.run, talker.stack, talker.identity, lambda: talker.read(0, 4, "in"),
        lambda: talker.crc(0, 4, "in"), lambda: talker.load_input(b"abcd"),
    ):  # fmt: skip
        talker._pending.clear()
        try:
            ask()
        except DeviceTrouble as error:
            shown = str(error)
        else:
            shown = ""
        assert shown.isprintable()
