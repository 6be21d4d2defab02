"""The client against devices that lie, stammer, flood and fall silent."""

from __future__ import annotations

import json
import re
import time
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress.device.exchange import ATTEMPTS
from edgecompress.device.lines import ANSWER_LIMIT_BYTES
from edgecompress.device.ports.base import Clock
from edgecompress.device.protocol import Client
from edgecompress.errors import DeviceTimeout, DeviceTrouble, ProtocolError

READY = b"m-ready\r\n"
FRAME = re.compile(rb"%?edge #[0-9a-f]{8} (\d+) (.*)%", re.DOTALL)


class ScriptedPort:
    """Answers every command with what `answer` makes of it, then sends `repeat` for ever."""

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


def framed(reply: bytes) -> Callable[[bytes], bytes]:
    """A device that gives every framed command this reply, sealed as the firmware seals it."""

    def answer(data: bytes) -> bytes:
        match = FRAME.fullmatch(data)
        if match is None:
            return READY
        covered = (b"" if match[2] == b"sync" else reply) + b"e2-end-%s-" % match[1]
        return covered + b"%08x\r\n" % zlib.crc32(covered) + READY

    return answer


def liar(reply: bytes) -> Client:
    """A client of a device whose every answer is well sealed, whatever it says."""
    return Client(ScriptedPort(framed(reply)), timeout_s=0.05, run_timeout_s=0.05)


def client(answer: bytes, repeat: bytes = b"") -> Client:
    """A client of a device that knows nothing of frames."""
    return Client(ScriptedPort(lambda _command: answer, repeat), timeout_s=0.05, run_timeout_s=0.05)


def test_lines_before_ready_are_the_answer() -> None:
    assert client(b"one\r\ntwo\r\n" + READY).command("x") == ["one", "two"]


def test_silence_is_a_timeout_naming_the_command() -> None:
    with pytest.raises(DeviceTimeout, match=r"silent for 0\.05 s after 'edge sync'"):
        client(b"").run()


def test_an_answer_without_an_end_is_a_timeout() -> None:
    with pytest.raises(DeviceTimeout, match="did not finish answering 'edge sync'"):
        client(b"e2-ticks-5\r\n").run()
    with pytest.raises(DeviceTimeout, match="did not finish answering 'results'"):
        client(b"e2-ticks-5\r\n").command("results")


def test_a_refusal_carries_the_devices_words() -> None:
    with pytest.raises(ProtocolError, match="refused 'edge run': Unknown command"):
        liar(b"e-[Unknown command: edge]\r\n").run()
    with pytest.raises(ProtocolError, match="refused 'infer x': Iterations"):
        client(b"e-[Iterations must be >0]\r\n" + READY).command("infer x")


def test_firmware_older_than_frames_is_named() -> None:
    with pytest.raises(ProtocolError, match=r"older than this tool\. Compile and flash"):
        client(b"e-[Unknown command]\r\n" + READY).identity()


@pytest.mark.parametrize(
    "flood", [b"A" * 4096, b"spam\r\n" * 500, b"\r\n" * 2000, b"m-ready\r\n" * 400]
)
def test_an_endless_answer_is_cut_off(flood: bytes) -> None:
    for ask in (lambda device: device.synchronize(patience_s=5), lambda device: device.run()):
        talker = client(b"", repeat=flood)
        talker.timeout_s = talker.run_timeout_s = 20
        with pytest.raises(ProtocolError, match=r"longer than|more than|damaged or lost"):
            ask(talker)
        assert talker.port.read_bytes < 3 * ANSWER_LIMIT_BYTES


def test_an_endless_talker_is_never_synchronized_with() -> None:
    with pytest.raises(ProtocolError, match="more than"):
        client(b"", repeat=b"spam\r\n" * 500).synchronize(patience_s=5)


class DrippingPort(ScriptedPort):
    """One byte at a time, each well before the silence would be noticed."""

    def __init__(self) -> None:
        super().__init__(lambda _command: b"")

    def read(self, timeout_s: float) -> bytes:
        time.sleep(min(timeout_s, 0.01))
        return b"e"


def test_a_device_that_drips_ends() -> None:
    for ask in (Client.run, Client.stack, Client.synchronize, lambda device: device.command("x")):
        device = Client(DrippingPort(), timeout_s=0.2, run_timeout_s=0.2)
        started = time.monotonic()
        with pytest.raises(DeviceTimeout):
            ask(device, **({"patience_s": 0.2} if ask is Client.synchronize else {}))
        assert time.monotonic() - started < 2


def test_a_device_that_never_takes_a_byte_ends() -> None:
    class Deaf(ScriptedPort):
        def write(self, data: bytes, timeout_s: float) -> None:
            raise DeviceTimeout("it took nothing")

    with pytest.raises(DeviceTimeout, match="took nothing"):
        Client(Deaf(lambda _command: b"")).synchronize()


@pytest.mark.parametrize(
    "line",
    [b"e2-ticks-", b"e2-ticks--5", b"e2-ticks-1_0", b"e2-ticks-+1", b"e2-ticks-" + b"9" * 30,
     b"e2-ticks-\xd9\xa1", b"hello", b""],
)  # fmt: skip
def test_numbers_outside_the_grammar(line: bytes) -> None:
    with pytest.raises(ProtocolError, match="outside the protocol"):
        liar(line + b"\r\n").run()


def data_lines(data: bytes) -> bytes:
    return b"".join(
        b"e2-data-%d-%s\r\n" % (len(piece), piece.hex().encode())
        for piece in (data[start : start + 64] for start in range(0, len(data), 64))
    )


def test_bytes_are_what_the_lines_hold() -> None:
    data = bytes(range(160))
    assert liar(data_lines(data)).read(0, 160, "arena") == data


def test_a_damaged_reply_is_asked_for_again_and_given_up_at_last() -> None:
    sealed = framed(data_lines(bytes(range(60))))

    def damaging(data: bytes) -> bytes:
        return sealed(data).replace(b"0a0b", b"0a0c")

    device = Client(ScriptedPort(damaging), timeout_s=5, run_timeout_s=5)
    with pytest.raises(ProtocolError, match=f"damaged or lost {ATTEMPTS} times"):
        device.read(0, 60, "arena")
    assert device.retransmissions == ATTEMPTS - 1


@pytest.mark.parametrize("count", [59, 61, 0])
def test_missing_and_surplus_bytes_are_found(count: int) -> None:
    with pytest.raises(ProtocolError, match=f"gave {count} bytes .* 60 were asked for"):
        liar(data_lines(bytes(count))).read(0, 60, "arena")


def test_a_line_whose_length_lies_is_found() -> None:
    with pytest.raises(ProtocolError, match="outside the protocol"):
        liar(b"e2-data-4-010203\r\n").read(0, 4, "in")


def test_input_the_device_did_not_take_is_found() -> None:
    with pytest.raises(ProtocolError, match="holds 3 input bytes after 4 were sent"):
        liar(b"e2-loaded-3\r\n").load_input(b"abcd")


INFO = {
    "abi": "2", "model": "ab" * 32, "target": "cortex-m7", "device_id": "0011aabb",
    "settings": "icache=on wait_states=7", "clock_source": "registers", "clock_hz": "216000000",
    "tick_hz": "216000000", "input_bytes": "32", "output_bytes": "10", "arena_bytes": "96",
    "steps": "2", "region": "RAM 536870912 327680",
}  # fmt: skip


def info(**changes: str | None) -> bytes:
    fields = {key: value for key, value in (INFO | changes).items() if value is not None}
    return "".join(f"e2-{key}-{value}\r\n" for key, value in fields.items()).encode()


def test_an_identity_is_json_and_keeps_its_settings() -> None:
    identity = liar(info() + b"e2-something_new-x\r\n").identity()
    assert identity.settings == "icache=on wait_states=7"
    assert (identity.regions[0].name, identity.regions[0].size_bytes) == ("RAM", 327680)
    assert json.loads(json.dumps(asdict(identity)))["device_id"] == "0011aabb"


def test_another_firmware_abi_is_refused() -> None:
    with pytest.raises(ProtocolError, match="speaks firmware ABI 3, this tool 2"):
        liar(info(abi="3")).identity()


@pytest.mark.parametrize("field", [key for key in INFO if key != "region"])
def test_an_identity_with_a_field_missing_is_refused(field: str) -> None:
    with pytest.raises(ProtocolError, match=f"lacks '{field}'|speaks firmware ABI"):
        liar(info(**{field: None})).identity()


@pytest.mark.parametrize(
    ("field", "value"),
    [("model", "x" * 64), ("model", "AB" * 32), ("target", "../../etc"), ("target", ""),
     ("target", "<script>"), ("device_id", "012"), ("device_id", "00" * 13),
     ("settings", "a"), ("settings", "a=b;rm"), ("settings", "a=\x1b[2J"), ("settings", "a=b  c=d"),
     ("clock_source", "guess"), ("clock_hz", "-1"), ("tick_hz", "0"), ("steps", "1000000000"),
     ("arena_bytes", "1" + "0" * 19), ("input_bytes", "1" + "0" * 40), ("output_bytes", "\u0663"),
     ("region", "RAM 1"), ("region", "RAM x 2"), ("region", "../x 0 1"),
     ("region", "RAM 0 99999999999999"), ("region", "RAM 99999999999999999999 1")],
)  # fmt: skip
def test_fields_no_device_has_are_refused(field: str, value: str) -> None:
    with pytest.raises(ProtocolError, match=field) as caught:
        liar(info(**{field: value})).identity()
    assert str(caught.value).isprintable()
    assert str(caught.value).isascii()


def test_a_field_said_twice_is_refused() -> None:
    with pytest.raises(ProtocolError, match="outside the protocol"):
        liar(info() + b"e2-steps-3\r\n").identity()


def test_a_memory_map_of_a_million_entries_is_refused_in_little_memory() -> None:
    million = b"".join(b"e2-region-RAM %d 1\r\n" % index for index in range(1_000_000))
    device = liar(info(region=None) + million)
    device.timeout_s = 20
    with pytest.raises(ProtocolError, match=r"more than \d+ (bytes|lines)"):
        device.identity()
    with pytest.raises(ProtocolError, match="region"):
        liar(info(region=None) + b"e2-region-RAM 0 1\r\n" * 65).identity()


@pytest.mark.parametrize(
    "flood", [b"A" * 4096, b"x\r\n" * 1365, b"m-ready\r\n" * 455, b"\x1b[2J\n" * 800]
)
def test_a_flood_takes_little_memory(flood: bytes) -> None:
    talker = client(b"", repeat=flood)
    talker.timeout_s = 20
    tracemalloc.start()
    for ask in (talker.identity, talker.synchronize):
        with pytest.raises(DeviceTrouble) as caught:
            ask()
        assert str(caught.value).isprintable()
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 4 << 20


def test_old_chatter_is_skipped_when_synchronizing() -> None:
    sealed = framed(b"")

    def chatty(data: bytes) -> bytes:
        named = b"half a li\r\nm-ready\r\nm-ready\r\nm-name-dut-[x]\r\n" + READY
        return named if b"name" in data else sealed(data)

    Client(ScriptedPort(chatty)).synchronize(patience_s=1)


ASKS: list[Callable[[Client], object]] = [
    Client.run, Client.stack, Client.identity, Client.begin,
    lambda device: device.read(0, 4, "in"), lambda device: device.crc(0, 4, "in"),
    lambda device: device.load_input(b"abcd"), lambda device: device.step(0),
    lambda device: device.flash_matches("flash", 0, b"abcd"),
]  # fmt: skip


@given(answer=st.binary(max_size=300), index=st.integers(0, len(ASKS) - 1), sealed=st.booleans())
@settings(max_examples=200, deadline=None)
def test_no_answer_gets_past_the_error_tree(answer: bytes, index: int, sealed: bool) -> None:
    talker = liar(answer + b"\r\n") if sealed else client(answer + b"\r\n" + READY)
    talker.timeout_s = talker.run_timeout_s = 0.02
    shown = ""
    try:
        ASKS[index](talker)
    except DeviceTrouble as error:
        shown = str(error)
    assert shown.isascii()
    assert not shown or shown.isprintable()
