"""A serial port or anything else pyserial has a URL for: `/dev/ttyACM0`, `socket://host:port`,
`rfc2217://host:port`.

What is at the other end of a network URL may be hostile. Two habits of pyserial's would let it hang
the host or fill its memory: opening reads away whatever has arrived until nothing more comes, and
the RFC 2217 reader queues without limit. Both are replaced here.
"""

from __future__ import annotations

import contextlib
import queue
import sys
import time
from typing import Any

import serial
import serial.rfc2217

from edgecompress.device.ports.base import Clock, PortKind
from edgecompress.errors import DeviceFault, DeviceNotFound, DeviceTimeout

_READ_BYTES = 4096
# Fixed when the port is opened: pyserial reconfigures the line whenever a timeout changes.
_SLICE_SECONDS = 0.05
_WRITE_SECONDS = 10
_QUEUE_BYTES = 1 << 16


class SerialPort:
    """An open port.

    Args:
        url: what pyserial's serial_for_url takes.
        baud: bits per second.

    Raises:
        DeviceNotFound: it is missing, busy, or the URL is not one.
    """

    kind: PortKind = "serial"
    clock = Clock("measured on device", ticks_are_time=True)

    def __init__(self, url: str, *, baud: int = 115200) -> None:
        self.name = url
        try:
            self._port = _opened(url, baud)
        except (serial.SerialException, ValueError, OSError) as error:
            raise DeviceNotFound(
                f"Serial port '{url}' cannot be opened: {error}.",
                next_step="Check the cable, the name, and that no other program holds it.",
            ) from None

    def write(self, data: bytes, timeout_s: float) -> None:  # noqa: ARG002 - set at opening
        try:
            self._port.write(data)
        except serial.SerialTimeoutException:
            raise DeviceTimeout(
                f"{self.name} did not take {len(data)} bytes within {_WRITE_SECONDS} s."
            ) from None
        except (serial.SerialException, OSError) as error:
            raise DeviceFault(f"{self.name} is gone: {error}.") from None

    def read(self, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        try:
            while True:
                # One byte with patience, then whatever came with it: no call per byte.
                data = self._port.read(1)
                while data and len(data) < _READ_BYTES and self._port.in_waiting:
                    # A socket says 1 however many there are.
                    data += self._port.read(min(self._port.in_waiting, _READ_BYTES - len(data)))
                if data:
                    return data
                if time.monotonic() >= deadline:
                    return b""
        except (serial.SerialException, OSError) as error:
            raise DeviceFault(f"{self.name} is gone: {error}.") from None

    def check(self) -> None:
        """A cable has no health of its own."""

    def close(self) -> None:
        self._port.close()


class _Rfc2217(serial.rfc2217.Serial):
    """pyserial's client with a bounded queue: a flood waits in the network, not in memory."""

    _bounded: queue.Queue[bytes | None] | None = None

    @property
    def _read_buffer(self) -> queue.Queue[bytes | None] | None:
        return self._bounded

    @_read_buffer.setter
    def _read_buffer(self, value: queue.Queue[bytes | None] | None) -> None:
        if value is not None:
            value.maxsize = _QUEUE_BYTES
        self._bounded = value

    def close(self) -> None:
        """The reader thread may wait for room: it must go on to find its socket closed."""
        if self._bounded is not None:
            self._bounded.maxsize = sys.maxsize
            with contextlib.suppress(queue.Empty):
                self._bounded.get_nowait()
        super().close()


def _opened(url: str, baud: int) -> serial.Serial:
    if url.lower().startswith("rfc2217://"):
        # It has no limit on writing, and refuses one; its socket has: 5 seconds.
        port: Any = _Rfc2217()
        port.port = url
    else:
        port = serial.serial_for_url(url, do_not_open=True, write_timeout=_WRITE_SECONDS)
    port.baudrate = baud
    port.timeout = _SLICE_SECONDS
    if "://" in url:
        # Whoever opens a device skips its old chatter, in bounded time.
        port.reset_input_buffer = lambda: None
    port.open()
    return port
