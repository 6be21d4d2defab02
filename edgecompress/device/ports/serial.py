"""A serial port or anything else pyserial has a URL for (`/dev/ttyACM0`, `socket://host:port`)."""

from __future__ import annotations

import time

import serial

from edgecompress.device.ports.base import Clock, PortKind
from edgecompress.errors import DeviceFault, DeviceNotFound, DeviceTimeout

_READ_BYTES = 4096
# Fixed when the port is opened: pyserial reconfigures the line whenever a timeout changes.
_SLICE_SECONDS = 0.05
_WRITE_SECONDS = 10


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
        # pyserial's RFC 2217 client has no such limit and refuses one.
        write_seconds = None if url.startswith("rfc2217://") else _WRITE_SECONDS
        try:
            self._port = serial.serial_for_url(
                url, baudrate=baud, timeout=_SLICE_SECONDS, write_timeout=write_seconds
            )
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
                if data:
                    return data + self._port.read(min(self._port.in_waiting, _READ_BYTES - 1))
                if time.monotonic() >= deadline:
                    return b""
        except (serial.SerialException, OSError) as error:
            raise DeviceFault(f"{self.name} is gone: {error}.") from None

    def check(self) -> None:
        """A cable has no health of its own."""

    def close(self) -> None:
        self._port.close()
