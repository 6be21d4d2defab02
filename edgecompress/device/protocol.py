"""The host's side of the firmware protocol: one command at a time, every answer checked.

Commands end with `%`; a device answers in lines and closes with `m-ready` (MLPerf Tiny, EEMBC
EnergyRunner). Lines of the `edge` commands begin with `e2-`, refusals are `e-[text]`; they travel
framed (exchange.py), so that a bad line costs a repetition and never a wrong byte. A device may be
broken or hostile: lines, lines per answer, bytes and time are bounded, and anything outside the
grammar is a ProtocolError.
"""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Callable
from typing import Literal, TypeVar

from edgecompress.device.exchange import READY, Exchange
from edgecompress.device.identity import Identity, number, parse_identity
from edgecompress.device.lines import Lines, shown
from edgecompress.device.ports.base import Port
from edgecompress.errors import DeviceReset, DeviceTimeout, ProtocolError

Area = Literal["in", "arena", "out"]
_Answer = TypeVar("_Answer")

# A line of the firmware holds 160 characters; the frame, the offset and these bytes fill it. With
# its answer it costs 200 characters on the line: 3.4 kB/s at 115200 baud. A profile's console.baud
# sets both ends, and so does more.
_LOAD_CHUNK_BYTES = 60
# What a damaged line makes the device send again: under a tenth of a second at 115200 baud.
_READ_CHUNK_BYTES = 512
_CRC_CHUNK_BYTES = 65536
# The slowest line a transfer may need (9600 baud carries 450 bytes a second as hexadecimal).
_SLOWEST_BYTES_PER_SECOND = 200
_RESET_LIMIT = 3
_NAME_SECONDS = 2.0

_DATA = re.compile(r"e2-data-(\d{1,3})-([0-9a-f]*)")
_STACK = re.compile(r"e2-stack-(\d{1,10})-of-(\d{1,10})")


class Client:
    """Speaks to one device over an open port.

    Args:
        port: the byte stream.
        timeout_s: how long a command may take; `run` and `step` take `run_timeout_s`, transfers
            longer in proportion to their bytes.

    Attributes:
        resets: how often the device started again during a transfer that was then begun anew.
    """

    def __init__(self, port: Port, *, timeout_s: float = 10.0, run_timeout_s: float = 120.0):
        self.port = port
        self.timeout_s = timeout_s
        self.run_timeout_s = run_timeout_s
        self.resets = 0
        self._lines = Lines(port)
        self._exchange = Exchange(self._lines)

    @property
    def retransmissions(self) -> int:
        """Commands sent again because the line lost, doubled or damaged them or their reply."""
        return self._exchange.retransmissions

    def synchronize(self, *, patience_s: float = 10.0) -> None:
        """Waits until the device answers its name, discarding whatever it said before.

        Raises:
            DeviceTimeout: no answer.
            ProtocolError: an endless answer, or firmware older than this tool.
        """
        deadline_s = time.monotonic() + patience_s
        while True:
            # A lone % ends whatever half a command an earlier session left in the buffer.
            self.port.write(b"%name%", self.timeout_s)
            if self._await_name(min(time.monotonic() + _NAME_SECONDS, deadline_s)):
                break
            if time.monotonic() >= deadline_s:
                raise DeviceTimeout(
                    f"{self.port.name} did not answer 'name' within {patience_s:g} s.",
                    next_step="Check the port, its baud rate and that the image is running.",
                )
        self._exchange.open(self.timeout_s)

    def _await_name(self, deadline_s: float) -> bool:
        named = False
        self._lines.expect_answer()
        try:
            while True:
                line = self._lines.next(deadline_s)
                if line.startswith(b"m-name-"):
                    named = True
                elif named and line == READY:
                    return True
        except DeviceTimeout:
            return False

    def command(self, text: str, *, timeout_s: float | None = None) -> list[str]:
        """Sends one of the benchmark's own commands; returns the lines before `m-ready`.

        Nothing but its grammar protects these from a bad line.

        Raises:
            DeviceTimeout: no whole answer within `timeout_s`.
            ProtocolError: the device refused the command, or its answer breaks the grammar.
            DeviceFault: the device is known to have crashed.
        """
        limit_s = self.timeout_s if timeout_s is None else timeout_s
        self._lines.expect_answer()
        self.port.write(f"{text}%".encode("ascii"), self.timeout_s)
        deadline_s = time.monotonic() + limit_s
        lines: list[str] = []
        while True:
            try:
                line = self._lines.next(deadline_s)
            except DeviceTimeout:
                raise DeviceTimeout(
                    f"{self.port.name} did not finish answering '{shown(text)}' within "
                    f"{limit_s:g} s.",
                    next_step="The firmware hangs, or the model is slower than the limit.",
                ) from None
            if line == READY:
                return lines
            if line.startswith(b"e-["):
                words = shown(line[3:].removesuffix(b"]"))
                raise ProtocolError(f"{self.port.name} refused '{shown(text)}': {words}.")
            lines.append(line.decode("ascii", errors="replace"))

    def identity(self) -> Identity:
        """What the firmware says it is.

        Raises:
            ProtocolError: another ABI, or a field no device could have.
        """
        lines = self._through_resets(lambda: self._exchange.ask("info", self.timeout_s))
        return parse_identity(self.port.name, lines)

    def load_input(self, data: bytes) -> None:
        """Writes the model's input memory from its start; begins anew after a reset."""
        self._through_resets(lambda: self._load(data))

    def _load(self, data: bytes) -> None:
        deadline_s = self._transfer_deadline(len(data))
        for offset in range(0, len(data), _LOAD_CHUNK_BYTES):
            chunk = data[offset : offset + _LOAD_CHUNK_BYTES]
            text = f"load {offset} {chunk.hex()}"
            loaded = self._one_number(text, "e2-loaded-", self._share(deadline_s))
            if loaded != offset + len(chunk):
                raise ProtocolError(
                    f"{self.port.name} holds {loaded} input bytes after {offset + len(chunk)} "
                    "were sent."
                )

    def run(self) -> int:
        """A whole inference; ticks."""
        return self._one_number("run", "e2-ticks-", self.run_timeout_s)

    def begin(self) -> None:
        """The next step is step 0."""
        self._exchange.ask("begin", self.timeout_s)

    def step(self, index: int) -> int:
        """Runs step `index`, which must be the next one; ticks."""
        return self._one_number(f"step {index}", "e2-ticks-", self.run_timeout_s)

    def crc(self, offset: int, count: int, area: Area) -> int:
        """CRC-32 (zlib's) of `count` bytes at `offset` of an area, computed by the device."""
        return self._crc(f"crc {offset} {count} {area}")

    def flash_matches(self, region: str, offset: int, data: bytes) -> bool:
        """Whether the device's flash holds `data` at `offset` of the named region.

        Compared by CRC-32, computed on the device, in pieces of 64 KiB.
        """
        for start in range(0, len(data), _CRC_CHUNK_BYTES):
            piece = data[start : start + _CRC_CHUNK_BYTES]
            text = f"crc {offset + start} {len(piece)} {region}"
            found = self._through_resets(lambda text=text: self._crc(text))
            if found != zlib.crc32(piece):
                return False
        return True

    def read(self, offset: int, count: int, area: Area) -> bytes:
        """`count` bytes at `offset` of an area."""
        deadline_s = self._transfer_deadline(count)
        chunks = []
        for start in range(offset, offset + count, _READ_CHUNK_BYTES):
            length = min(_READ_CHUNK_BYTES, offset + count - start)
            text = f"read {start} {length} {area}"
            lines = self._exchange.ask(text, self._share(deadline_s))
            chunks.append(self._bytes(text, lines, length))
        return b"".join(chunks)

    def output(self, count: int) -> bytes:
        """The model's output memory, `count` bytes."""
        return self.read(0, count, "out")

    def stack(self) -> tuple[int, int]:
        """(high-water, available) in bytes.

        Raises:
            ProtocolError: this device does not know its stack's bounds.
        """
        line = self._one("stack", self._exchange.ask("stack", self.timeout_s))
        match = _STACK.fullmatch(line)
        if match is None:
            raise self._outside_grammar("stack", line)
        if int(match[2]) == 0:
            raise ProtocolError(f"{self.port.name} does not know the bounds of its stack.")
        return int(match[1]), int(match[2])

    def _through_resets(self, ask: Callable[[], _Answer]) -> _Answer:
        """For what needs nothing the device loses: asked again after each of a few resets."""
        while True:
            try:
                return ask()
            except DeviceReset:
                if self.resets >= _RESET_LIMIT:
                    raise
                self.resets += 1
                self.synchronize()

    def _transfer_deadline(self, count: int) -> float:
        return time.monotonic() + self.timeout_s + count / _SLOWEST_BYTES_PER_SECOND

    def _share(self, deadline_s: float) -> float:
        """One command's part of a transfer's time."""
        return max(min(self.timeout_s, deadline_s - time.monotonic()), 0.01)

    def _bytes(self, text: str, lines: list[str], count: int) -> bytes:
        """What e2-data-LENGTH-HEX lines hold."""
        data = bytearray()
        for line in lines:
            match = _DATA.fullmatch(line)
            if match is None or len(match[2]) != 2 * int(match[1]):
                raise self._outside_grammar(text, line)
            data += bytes.fromhex(match[2])
        if len(data) != count:
            raise ProtocolError(
                f"{self.port.name} gave {len(data)} bytes for 'edge {text}', {count} were asked "
                "for."
            )
        return bytes(data)

    def _crc(self, text: str) -> int:
        line = self._one(text, self._exchange.ask(text, self.timeout_s))
        if re.fullmatch(r"e2-crc-[0-9a-f]{8}", line) is None:
            raise self._outside_grammar(text, line)
        return int(line[-8:], 16)

    def _one_number(self, text: str, prefix: str, timeout_s: float) -> int:
        line = self._one(text, self._exchange.ask(text, timeout_s))
        try:
            if line.startswith(prefix):
                return number(line.removeprefix(prefix))
        except ValueError:
            pass
        raise self._outside_grammar(text, line)

    def _one(self, text: str, lines: list[str]) -> str:
        if len(lines) != 1:
            raise ProtocolError(
                f"{self.port.name} answered 'edge {shown(text)}' with {len(lines)} lines, not one."
            )
        return lines[0]

    def _outside_grammar(self, text: str, line: str) -> ProtocolError:
        return ProtocolError(
            f"{self.port.name} answered 'edge {shown(text)}' with '{shown(line)}', which is "
            "outside the protocol."
        )
