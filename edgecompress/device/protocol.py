"""The host's side of the firmware protocol: one command at a time, every answer checked.

Commands end with `%`; a device answers in lines and closes with `m-ready` (MLPerf Tiny, EEMBC
EnergyRunner). Lines of the `edge` commands begin with `e2-`, refusals are `e-[text]`. A device may
be broken or hostile: lines, lines per answer and bytes are bounded, silence is bounded, checksums
are compared, and anything outside the grammar is a ProtocolError.
"""

from __future__ import annotations

import re
import time
import zlib
from dataclasses import dataclass
from typing import Any, Literal

from edgecompress.device.ports.base import Port
from edgecompress.errors import DeviceTimeout, ProtocolError

Area = Literal["in", "arena", "out"]

ABI_VERSION = 2
LINE_LIMIT_BYTES = 65536
ANSWER_LIMIT_BYTES = 1 << 20
_READ_CHUNK_BYTES = 8192
_LOAD_CHUNK_BYTES = 64
_SLICE_SECONDS = 0.1
_READY = "m-ready"
_SHOWN_CHARACTERS = 80

_INFO = re.compile(r"e2-info-([a-z_]+)-\[([^\]]*)\]")
_DATA = re.compile(r"e2-data-(\d{1,3})-([0-9a-f]*)")
_STACK = re.compile(r"e2-stack-(\d{1,10})-of-(\d{1,10})")


@dataclass(frozen=True)
class Identity:
    """What the firmware says it is (`edge info`)."""

    abi: int
    model: str
    target: str
    clock_hz: int
    tick_hz: int
    input_bytes: int
    output_bytes: int
    arena_bytes: int
    steps: int
    arena_address: int


class Client:
    """Speaks to one device over an open port.

    Args:
        port: the byte stream.
        timeout_s: how long a command may be silent; `run` and `step` take `run_timeout_s`.
    """

    def __init__(self, port: Port, *, timeout_s: float = 10.0, run_timeout_s: float = 120.0):
        self.port = port
        self.timeout_s = timeout_s
        self.run_timeout_s = run_timeout_s
        self._pending = bytearray()

    def synchronize(self, *, patience_s: float = 10.0) -> None:
        """Waits until the device answers its name, discarding whatever it said before.

        Raises:
            DeviceTimeout: no answer.
            ProtocolError: an endless answer.
        """
        deadline = time.monotonic() + patience_s
        attempt_s = 2.0
        while True:
            # A lone % ends whatever half a command an earlier session left in the buffer.
            self.port.write(b"%name%", self.timeout_s)
            if self._await_name(min(attempt_s, max(deadline - time.monotonic(), 0.1))):
                return
            if time.monotonic() >= deadline:
                raise DeviceTimeout(
                    f"{self.port.name} did not answer 'name' within {patience_s:g} s.",
                    next_step="Check the port and that the image is running.",
                )

    def _await_name(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        named, seen_bytes = False, 0
        while True:
            try:
                line = self._line(deadline)
            except DeviceTimeout:
                return False
            seen_bytes += len(line)
            if seen_bytes > ANSWER_LIMIT_BYTES:
                raise ProtocolError(
                    f"{self.port.name} sent more than {ANSWER_LIMIT_BYTES} bytes without its name."
                )
            if line.startswith("m-name-"):
                named = True
            elif named and line == _READY:
                return True

    def command(self, text: str, *, timeout_s: float | None = None) -> list[str]:
        """Sends a command; returns the lines before `m-ready`.

        Raises:
            DeviceTimeout: silence past the limit, counted again from each line.
            ProtocolError: the device refused the command, or its answer breaks the grammar.
            DeviceFault: the device is known to have crashed.
        """
        silence_s = self.timeout_s if timeout_s is None else timeout_s
        self.port.write(f"{text}%".encode("ascii"), self.timeout_s)
        lines: list[str] = []
        answer_bytes = 0
        while True:
            try:
                line = self._line(time.monotonic() + silence_s)
            except DeviceTimeout:
                raise DeviceTimeout(
                    f"{self.port.name} was silent for {silence_s:g} s after '{_shown(text)}'.",
                    next_step="The firmware hangs, or the model is slower than the limit.",
                ) from None
            if line == _READY:
                break
            answer_bytes += len(line)
            if answer_bytes > ANSWER_LIMIT_BYTES:
                raise ProtocolError(
                    f"{self.port.name} answered '{_shown(text)}' with more than "
                    f"{ANSWER_LIMIT_BYTES} bytes."
                )
            lines.append(line)
        for line in lines:
            if line.startswith("e-["):
                raise ProtocolError(
                    f"{self.port.name} refused '{_shown(text)}': {_shown(line[3:].rstrip(']'))}."
                )
        return lines

    def identity(self) -> Identity:
        fields = {}
        for line in self.command("edge info"):
            match = _INFO.fullmatch(line)
            if match is None:
                raise self._outside_grammar("edge info", line)
            fields[match[1]] = match[2]
        if fields.get("abi") != str(ABI_VERSION):
            raise ProtocolError(
                f"{self.port.name} speaks firmware ABI {fields.get('abi')}, this tool "
                f"{ABI_VERSION}.",
                next_step="Compile and flash the image again.",
            )
        try:
            texts = {name: fields[name] for name in ("model", "target")}
            numbers: dict[str, Any] = {
                name: _number(fields[name])
                for name in Identity.__dataclass_fields__
                if name not in texts
            }
        except (KeyError, ValueError) as error:
            raise ProtocolError(f"{self.port.name}: edge info lacks or garbles {error}.") from None
        return Identity(**(texts | numbers))

    def load_input(self, data: bytes) -> None:
        """Writes the model's input memory from its start, each line checked by the device."""
        for offset in range(0, len(data), _LOAD_CHUNK_BYTES):
            chunk = data[offset : offset + _LOAD_CHUNK_BYTES]
            text = f"edge load {offset} {chunk.hex()}"
            loaded = self._one_number(text, "e2-loaded-")
            if loaded != offset + len(chunk):
                raise ProtocolError(
                    f"{self.port.name} holds {loaded} input bytes after {offset + len(chunk)} "
                    "were sent."
                )

    def run(self) -> int:
        """A whole inference; ticks."""
        return self._one_number("edge run", "e2-ticks-", timeout_s=self.run_timeout_s)

    def begin(self) -> None:
        """The next step is step 0."""
        self.command("edge begin")

    def step(self, index: int) -> int:
        """Runs step `index`, which must be the next one; ticks."""
        return self._one_number(f"edge step {index}", "e2-ticks-", timeout_s=self.run_timeout_s)

    def crc(self, offset: int, count: int, area: Area) -> int:
        """CRC-32 (zlib's) of `count` bytes at `offset` of an area, computed by the device."""
        text = f"edge crc {offset} {count} {area}"
        return self._crc(text, self._one(text, self.command(text)))

    def read(self, offset: int, count: int, area: Area) -> bytes:
        """`count` bytes at `offset` of an area; every chunk's checksum is compared."""
        chunks = []
        for start in range(offset, offset + count, _READ_CHUNK_BYTES):
            length = min(_READ_CHUNK_BYTES, offset + count - start)
            chunks.append(self._bytes(f"edge read {start} {length} {area}", length))
        return b"".join(chunks)

    def output(self, count: int) -> bytes:
        """The model's output memory, `count` bytes."""
        return self._bytes("edge out", count)

    def stack(self) -> tuple[int, int]:
        """(high-water, available) in bytes."""
        lines = self.command("edge stack")
        match = _STACK.fullmatch(self._one("edge stack", lines))
        if match is None:
            raise self._outside_grammar("edge stack", lines[0])
        return int(match[1]), int(match[2])

    def _bytes(self, text: str, count: int) -> bytes:
        *lines, last = self.command(text) or [""]
        data = bytearray()
        for line in lines:
            match = _DATA.fullmatch(line)
            if match is None or len(match[2]) != 2 * int(match[1]):
                raise self._outside_grammar(text, line)
            data += bytes.fromhex(match[2])
        if len(data) != count:
            raise ProtocolError(
                f"{self.port.name} gave {len(data)} bytes for '{text}', {count} were asked for."
            )
        expected = self._crc(text, last)
        if zlib.crc32(data) != expected:
            raise ProtocolError(
                f"{self.port.name}: the bytes of '{text}' have CRC {zlib.crc32(data):08x}, the "
                f"device says {expected:08x}: the line corrupts data.",
                next_step="Check the cable, or lower the baud rate.",
            )
        return bytes(data)

    def _crc(self, text: str, line: str) -> int:
        if re.fullmatch(r"e2-crc-[0-9a-f]{8}", line) is None:
            raise self._outside_grammar(text, line)
        return int(line[-8:], 16)

    def _one_number(self, text: str, prefix: str, *, timeout_s: float | None = None) -> int:
        lines = self.command(text, timeout_s=timeout_s)
        line = self._one(text, [line for line in lines if line != "e2-started"])
        try:
            if line.startswith(prefix):
                return _number(line.removeprefix(prefix))
        except ValueError:
            pass
        raise self._outside_grammar(text, line)

    def _one(self, text: str, lines: list[str]) -> str:
        if len(lines) != 1:
            raise ProtocolError(
                f"{self.port.name} answered '{_shown(text)}' with {len(lines)} lines, not one."
            )
        return lines[0]

    def _outside_grammar(self, text: str, line: str) -> ProtocolError:
        return ProtocolError(
            f"{self.port.name} answered '{_shown(text)}' with '{_shown(line)}', which is outside "
            "the protocol."
        )

    def _line(self, deadline: float) -> str:
        while True:
            end = self._pending.find(b"\n")
            if end >= 0:
                line = bytes(self._pending[:end]).rstrip(b"\r")
                del self._pending[: end + 1]
                return line.decode("ascii", errors="replace")
            if len(self._pending) > LINE_LIMIT_BYTES:
                raise ProtocolError(
                    f"{self.port.name} sent a line longer than {LINE_LIMIT_BYTES} bytes."
                )
            data = self.port.read(_SLICE_SECONDS)
            self._pending += data
            if not data:
                self.port.check()
                if time.monotonic() >= deadline:
                    raise DeviceTimeout(f"{self.port.name} is silent.")


def _number(text: str) -> int:
    """Decimal digits only, at most 20: int() would also take '+1', '1_0' and endless digits."""
    if re.fullmatch(r"\d{1,20}", text, re.ASCII) is None:
        raise ValueError(f"'{_shown(text)}'")
    return int(text)


def _shown(text: str) -> str:
    """Safe to print: bounded, printable."""
    clean = "".join(char if char.isprintable() else "?" for char in text)
    return clean if len(clean) <= _SHOWN_CHARACTERS else clean[:_SHOWN_CHARACTERS] + "..."
