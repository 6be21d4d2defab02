"""The virtual board behind a pseudo-terminal: the harness opens it as it would any serial port."""

from __future__ import annotations

import os
import select
import threading
import tty
from pathlib import Path

from edgecompress.device.cycles import Work
from edgecompress.device.ports.base import Clock, PortKind
from edgecompress.device.ports.board import Board, Console
from edgecompress.device.ports.serial import SerialPort
from edgecompress.errors import DeviceFault
from edgecompress.target.schema import DeviceProfile

_FLUSH_BYTES = 2048
_LINE_END = 10
_READ_BYTES = 4096
_JOIN_SECONDS = 10


class PtyConsole(Console):
    """The board's side of a PTY. Used from the emulator's thread, `switch_off` from any."""

    def __init__(self) -> None:
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self._wake_read, self._wake_write = os.pipe()
        self._off = False
        self._received = bytearray()
        self._position = 0
        self._to_send = bytearray()
        self.path = os.ttyname(self._slave)

    def available(self) -> bool:
        return self._position < len(self._received)

    def send(self, byte: int) -> None:
        self._to_send.append(byte)
        # A whole line goes out at once: it may announce a long run.
        if byte == _LINE_END or len(self._to_send) >= _FLUSH_BYTES:
            self.flush()

    def receive(self, *, wait: bool) -> int | None:
        if wait:
            self.flush()
            while not self.available() and not self._off:
                self._fill()
            return None
        if not self.available():
            return None
        self._position += 1
        return self._received[self._position - 1]

    def _fill(self) -> None:
        select.select([self._master, self._wake_read], [], [])
        try:
            self._received = bytearray(os.read(self._master, _READ_BYTES))
        except (BlockingIOError, OSError):
            self._received = bytearray()
        self._position = 0

    def flush(self) -> None:
        """Gives what the firmware sent to the PTY, waiting while the reader is behind."""
        while self._to_send and not self._off:
            _, writable, _ = select.select([self._wake_read], [self._master], [])
            if writable:
                try:
                    sent = os.write(self._master, self._to_send)
                except BlockingIOError:
                    continue
                del self._to_send[:sent]

    def switch_off(self) -> None:
        self._off = True
        os.write(self._wake_write, b"x")

    def close(self) -> None:
        for descriptor in (self._master, self._slave, self._wake_read, self._wake_write):
            os.close(descriptor)


class VirtualPort:
    """A running virtual board, reached through pyserial over its PTY and in no other way.

    Raises:
        DeviceNotFound, InvalidTarget, BadInput: as `Board`.
    """

    kind: PortKind = "virtual"
    clock = Clock("emulated instructions", instructions_per_tick=1.0)

    def __init__(self, elf: Path, profile: DeviceProfile, *, counter: str = "auto") -> None:
        self.name = f"virtual {profile.name}"
        self._console = PtyConsole()
        self._serial: SerialPort | None = None
        self._thread: threading.Thread | None = None
        try:
            self.board = Board(elf, profile, self._console, counter=counter)
            self._serial = SerialPort(self._console.path, baud=profile.console.baud)
            self._closing = False
            self._thread = threading.Thread(target=self._power_on, name=self.name, daemon=True)
            self._thread.start()
        except BaseException:
            self.close()
            raise

    def _power_on(self) -> None:
        self.board.run()
        self._console.flush()

    def write(self, data: bytes, timeout_s: float) -> None:
        assert self._serial is not None
        self._serial.write(data, timeout_s)

    def read(self, timeout_s: float) -> bytes:
        assert self._serial is not None
        return self._serial.read(timeout_s)

    def check(self) -> None:
        if self._closing:
            return
        if self.board.fault is not None:
            raise self.board.fault
        if self._thread is not None and not self._thread.is_alive():
            raise DeviceFault(f"{self.name} stopped without a fault.")

    def take_work(self) -> Work | None:
        return self.board.take_work()

    def close(self) -> None:
        self._closing = True
        self._console.switch_off()
        if self._thread is not None:
            # A firmware waiting for input returns at once; one in a loop is stopped where it is.
            self.board.stop()
            self._thread.join(_JOIN_SECONDS)
            self._thread = None
        if self._serial is not None:
            self._serial.close()
            self._serial = None
        self._console.close()
