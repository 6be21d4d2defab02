"""Commands that survive a bad line: each framed with a sequence number and a checksum, both ways.

A command travels as `edge #CRC SEQUENCE COMMAND%`, its reply ends with `e2-end-SEQUENCE-CRC`
(runtimes/core/edge.c). Whatever the line loses, doubles or damages breaks one of the two checksums
or the order, and only that command is sent again, a bounded number of times. The device runs a
sequence number once and repeats what it said when it sees the number again, so nothing runs twice;
a device that was reset no longer knows the sequence and says so.
"""

from __future__ import annotations

import re
import secrets
import time
import zlib
from dataclasses import dataclass

from edgecompress.device.lines import Lines, shown
from edgecompress.errors import DeviceReset, DeviceTimeout, ProtocolError

READY = b"m-ready"
ATTEMPTS = 8
_LINES_LIMIT = 8192
_QUIET_SECONDS = 0.03
_QUIET_LIMIT_SECONDS = 0.5
# m-ready follows the checked trailer; where it was lost, the next command need not wait for it.
_READY_SECONDS = 0.25
# A command the device has not begun to answer by then was lost.
_LOST_SECONDS = 2.5
_FIRST_SEQUENCE, _SEQUENCES = 1_000, 900_000
_BANNER = (b"m-timestamp-mode-performance", b"m-init-done")
_STARTED = b"e2-started"
_SEQUENCE_REFUSED = b"e-[Out of sequence]"
_TRAILER = re.compile(rb"e2-end-(\d{1,10})-([0-9a-f]{8})")
_UNKNOWN = b"e-[Unknown command]"


@dataclass
class _Attempt:
    """How one sending of a command ended: its answer, or what was wrong."""

    answer: list[bytes] | None
    trouble: str = ""
    last_line: bytes = b""


class Exchange:
    """One device's framed conversation.

    Attributes:
        retransmissions: commands sent again because the line damaged them or their reply.
    """

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._port = lines.port
        self._sequence = 0
        self.retransmissions = 0

    @property
    def is_open(self) -> bool:
        return self._sequence != 0

    def open(self, timeout_s: float) -> None:
        """Agrees on where the numbering starts.

        Raises:
            ProtocolError: the firmware knows no framed commands.
            DeviceTimeout: no answer.
        """
        self._sequence = 0
        first = _FIRST_SEQUENCE + secrets.randbelow(_SEQUENCES)
        answer = self._transact(first, "sync", timeout_s)
        if answer:
            raise ProtocolError(
                f"{self._port.name} answered 'edge sync' with '{shown(b' '.join(answer))}'."
            )
        self._sequence = first

    def ask(self, text: str, timeout_s: float) -> list[str]:
        """The lines a command is answered with, exactly as the device sent them.

        Args:
            text: what follows `edge`.
            timeout_s: for the whole of it, every repetition included.

        Raises:
            DeviceTimeout: no whole answer by then.
            DeviceReset: the device has started again since the last command.
            ProtocolError: the device refused the command, or every attempt was damaged.
            DeviceFault: the device is known to have crashed, or is gone.
        """
        if not self.is_open:
            self.open(timeout_s)
        sequence, self._sequence = self._sequence + 1, 0
        answer = self._transact(sequence, text, timeout_s)
        # Only now: after a failure nobody knows the device's number, and the next command asks.
        self._sequence = sequence
        if answer == [_SEQUENCE_REFUSED]:
            self._sequence = 0
            raise self._reset(text)
        for line in answer:
            if line.startswith(b"e-["):
                words = shown(line[3:].removesuffix(b"]"))
                raise ProtocolError(f"{self._port.name} refused 'edge {shown(text)}': {words}.")
        return [line.decode("ascii", errors="replace") for line in answer if line != _STARTED]

    def _transact(self, sequence: int, text: str, timeout_s: float) -> list[bytes]:
        deadline_s = time.monotonic() + timeout_s
        body = f"{sequence} {text}".encode("ascii")
        frame = b"edge #%s %s%%" % (zlib.crc32(body).to_bytes(4, "little").hex().encode(), body)
        result = _Attempt(None)
        for attempt in range(1, ATTEMPTS + 1):
            self._lines.expect_answer()
            self._port.write(frame, max(deadline_s - time.monotonic(), 0.01))
            # The last attempt may take all the time there is left: it may be slow, not lost.
            patience_s = timeout_s if attempt == ATTEMPTS else min(_LOST_SECONDS, timeout_s / 3)
            result = self._await(sequence, text, deadline_s, patience_s)
            if result.answer is not None:
                return result.answer
            if time.monotonic() >= deadline_s:
                raise self._timeout(text, timeout_s, result)
            if attempt < ATTEMPTS:
                self.retransmissions += 1
                self._lines.discard(_QUIET_SECONDS, _QUIET_LIMIT_SECONDS)
                # A % ends whatever the device holds of the damaged command.
                frame = b"%" + frame.lstrip(b"%")
        raise self._hopeless(text, result)

    def _await(self, sequence: int, text: str, deadline_s: float, patience_s: float) -> _Attempt:
        """Reads up to this command's trailer or, where that is missing, up to m-ready."""
        group: list[bytes] = []
        limit_s = patience_s
        while True:
            try:
                line = self._lines.next(deadline_s, limit_s)
            except DeviceTimeout:
                begun = "started" if group == [_STARTED] else "partial"
                return _Attempt(None, begun if group else "silent")
            if line in _BANNER:
                raise self._reset(text)
            trailer = _TRAILER.fullmatch(line)
            if trailer is not None and _is_whole(group, trailer):
                if int(trailer[1]) == sequence:
                    self._swallow_ready(deadline_s)
                    return _Attempt(group)
                # The late answer of an earlier attempt.
                group = []
            elif line == READY:
                # Alone, it ends an empty command or an answer already taken.
                if group:
                    return _Attempt(None, "damaged", group[-1])
            elif len(group) >= _LINES_LIMIT:
                raise ProtocolError(
                    f"{self._port.name} answered 'edge {shown(text)}' with more than "
                    f"{_LINES_LIMIT} lines."
                )
            else:
                group.append(line)
                limit_s = float("inf") if group == [_STARTED] else patience_s

    def _swallow_ready(self, deadline_s: float) -> None:
        try:
            self._lines.next(min(deadline_s, time.monotonic() + _READY_SECONDS))
        except DeviceTimeout:
            return

    def _reset(self, text: str) -> DeviceReset:
        return DeviceReset(
            f"{self._port.name} was reset in the middle of 'edge {shown(text)}': it started again "
            "and its memory is lost.",
            next_step="Check its supply, its watchdog and the cable, then run again.",
        )

    def _timeout(self, text: str, timeout_s: float, result: _Attempt) -> DeviceTimeout:
        name = self._port.name
        if result.trouble == "partial":
            return DeviceTimeout(
                f"{name} did not finish answering 'edge {shown(text)}' within {timeout_s:g} s.",
                next_step="Check the cable and the baud rate.",
            )
        begun = "It began: the" if result.trouble == "started" else "The"
        return DeviceTimeout(
            f"{name} was silent for {timeout_s:g} s after 'edge {shown(text)}'.",
            next_step=f"{begun} firmware hangs, or the model is slower than the limit.",
        )

    def _hopeless(self, text: str, result: _Attempt) -> ProtocolError:
        if result.last_line == _UNKNOWN and text == "sync":
            return ProtocolError(
                f"{self._port.name} does not know the framed 'edge' commands: its firmware is "
                "older than this tool.",
                next_step="Compile and flash the image again.",
            )
        last = f", at last by '{shown(result.last_line)}'" if result.last_line else ""
        return ProtocolError(
            f"{self._port.name}: 'edge {shown(text)}' was damaged or lost {ATTEMPTS} times in a "
            f"row{last}.",
            next_step="Check the cable and its ground, or lower the baud rate.",
        )


def _is_whole(group: list[bytes], trailer: re.Match[bytes]) -> bool:
    """Whether the trailer's checksum is that of the lines before it."""
    covered = b"".join(line + b"\r\n" for line in group) + b"e2-end-%s-" % trailer[1]
    return zlib.crc32(covered) == int(trailer[2], 16)
