"""A port between the client and a real one that loses, doubles, damages and delays on purpose."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from edgecompress.device.ports.base import Port

Direction = Literal["to device", "from device"]
Kind = Literal[
    "drop", "double", "flip", "cut", "split", "garbage", "delay", "reset", "quiet reset", "flood",
]  # fmt: skip
BANNER = b"m-timestamp-mode-performance\r\nm-lap-us-0\r\nm-init-done\r\nm-ready\r\n"


@dataclass(frozen=True)
class Fault:
    """What happens to line `line` (counted from 0, from when the fault was armed) of a direction.

    `place` picks the byte that is flipped, or where the line is cut: a fraction of its length.
    """

    direction: Direction
    line: int
    kind: Kind
    place: float = 0.5


class FaultyPort:
    """Commands are lines towards the device.

    Args:
        inner: the device.
        restart: what a reset replaces it with: a device that has just started.
    """

    kind = "serial"

    def __init__(self, inner: Port, restart: Callable[[], Port] | None = None) -> None:
        self.inner = inner
        self.clock = inner.clock
        self.name = "faulty " + inner.name
        self._restart = restart
        self._partial = bytearray()
        self._ready = bytearray()
        self._faults: dict[tuple[Direction, int], Fault] = {}
        self._counts: dict[Direction, int] = {"to device": 0, "from device": 0}
        self._flooding = False
        self.happened: list[Fault] = []

    def arm(self, faults: list[Fault]) -> None:
        self._faults = {(fault.direction, fault.line): fault for fault in faults}
        self._counts = {"to device": 0, "from device": 0}
        self._flooding = False
        self.happened = []

    def _suffer(self, direction: Direction, line: bytes) -> bytes:
        number = self._counts[direction]
        self._counts[direction] += 1
        fault = self._faults.get((direction, number))
        if fault is None or not line:
            return line
        self.happened.append(fault)
        at = min(int(fault.place * len(line)), len(line) - 1)
        if fault.kind == "drop":
            return b""
        if fault.kind == "double":
            return line + line
        if fault.kind == "flip":
            # Never the bit between cases: a checksum reads the same in either, so no damage.
            return line[:at] + bytes([line[at] ^ 1 << at % 5]) + line[at + 1 :]
        if fault.kind == "cut":
            return line[:at]
        if fault.kind == "garbage":
            return line[:at] + b"\xff\x1b[2J%\x00~" + line[at:]
        if fault.kind == "split":
            self._forward(direction, line[:at])
            time.sleep(0.02)
            return line[at:]
        if fault.kind == "delay":
            time.sleep(0.15)
        if fault.kind == "flood":
            self._flooding = True
        if fault.kind.endswith("reset"):
            self._reset(quiet=fault.kind == "quiet reset")
            return b""
        return line

    def _forward(self, direction: Direction, data: bytes) -> None:
        if direction == "to device":
            self.inner.write(data, 5)
        else:
            self._ready += data

    def _reset(self, *, quiet: bool) -> None:
        assert self._restart is not None
        self.inner.close()
        self.inner = self._restart()
        deadline = time.monotonic() + 5
        banner = b""
        while not banner.endswith(b"m-ready\r\n") and time.monotonic() < deadline:
            banner += self.inner.read(0.1)
        self._partial.clear()
        if not quiet:
            self._ready += BANNER

    def write(self, data: bytes, timeout_s: float) -> None:
        sent = self._suffer("to device", data)
        if sent:
            self.inner.write(sent, timeout_s)

    def read(self, timeout_s: float) -> bytes:
        if self._flooding:
            return b"~" * 4096
        if not self._ready:
            self._partial += self.inner.read(timeout_s)
            while b"\n" in self._partial:
                end = self._partial.index(b"\n") + 1
                line = bytes(self._partial[:end])
                del self._partial[:end]
                self._ready += self._suffer("from device", line)
        if self._flooding:
            return b"~" * 4096
        data = bytes(self._ready[:4096])
        del self._ready[:4096]
        return data

    def check(self) -> None:
        self.inner.check()

    def close(self) -> None:
        self.inner.close()
