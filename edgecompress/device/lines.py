"""What a port sends, cut into lines, with every wait and every length bounded."""

from __future__ import annotations

import time

from edgecompress.device.ports.base import Port
from edgecompress.errors import DeviceTimeout, ProtocolError

LINE_LIMIT_BYTES = 65536
ANSWER_LIMIT_BYTES = 1 << 18
_SLICE_SECONDS = 0.1
_SHOWN_CHARACTERS = 80


class Lines:
    """The lines of one port.

    A device that never ends a line, never stops talking, or sends one byte a minute is ended by the
    limits below; nothing it sends makes this grow past them.
    """

    def __init__(self, port: Port) -> None:
        self.port = port
        self._pending = bytearray()
        self._searched = 0
        self._allowance = ANSWER_LIMIT_BYTES
        self._last_arrival_s = time.monotonic()

    def expect_answer(self) -> None:
        """From here on one answer may take ANSWER_LIMIT_BYTES; silence counts from now."""
        self._allowance = ANSWER_LIMIT_BYTES
        self._last_arrival_s = time.monotonic()

    def next(self, deadline_s: float, silence_s: float = float("inf")) -> bytes:
        """The next line without its end.

        Args:
            deadline_s: on time.monotonic's clock; holds however much arrives.
            silence_s: the longest wait for any byte at all.

        Raises:
            DeviceTimeout: either has passed.
            ProtocolError: the line, or the answer since `expect_answer`, is too long.
            DeviceFault: the device is known to be gone.
        """
        while True:
            end = self._pending.find(b"\n", self._searched)
            if end >= 0:
                line = bytes(self._pending[:end]).rstrip(b"\r")
                del self._pending[: end + 1]
                self._searched = 0
                self._spend(end + 1)
                return line
            self._searched = len(self._pending)
            if len(self._pending) > LINE_LIMIT_BYTES:
                raise ProtocolError(
                    f"{self.port.name} sent a line longer than {LINE_LIMIT_BYTES} bytes."
                )
            self._receive(deadline_s, silence_s)

    def _receive(self, deadline_s: float, silence_s: float) -> None:
        wait_s = min(deadline_s, self._last_arrival_s + silence_s) - time.monotonic()
        if wait_s <= 0:
            raise DeviceTimeout(f"{self.port.name} did not end its line in time.")
        data = self.port.read(min(wait_s, _SLICE_SECONDS))
        if data:
            self._pending += data
            self._last_arrival_s = time.monotonic()
        else:
            self.port.check()

    def _spend(self, count: int) -> None:
        self._allowance -= count
        if self._allowance < 0:
            raise ProtocolError(
                f"{self.port.name} answered one command with more than {ANSWER_LIMIT_BYTES} bytes."
            )

    def discard(self, quiet_s: float, limit_s: float) -> None:
        """Drops what is on its way, until nothing came for `quiet_s`, at most for `limit_s`."""
        self._pending.clear()
        self._searched = 0
        deadline_s = time.monotonic() + limit_s
        while time.monotonic() < deadline_s and self.port.read(quiet_s):
            pass


def shown(text: str | bytes) -> str:
    """A device's words, safe to print: bounded, printable ASCII, no control characters."""
    if isinstance(text, bytes):
        text = text.decode("ascii", errors="replace")
    text = text[: _SHOWN_CHARACTERS + 1]
    clean = "".join(char if char.isascii() and char.isprintable() else "?" for char in text)
    return clean if len(clean) <= _SHOWN_CHARACTERS else clean[:_SHOWN_CHARACTERS] + "..."
