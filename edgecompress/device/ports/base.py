"""What the protocol client needs of any way to reach a device: bytes both ways, its health."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from edgecompress.device.cycles import Work
from edgecompress.records import MeasurementLabel

PortKind = Literal["virtual", "process", "qemu", "serial", "adb"]


@dataclass(frozen=True)
class Clock:
    """What this port's ticks are worth.

    Attributes:
        label: the kind of figure a measurement over this port is.
        instructions_per_tick: None where ticks are time.
        ticks_are_time: whether ticks / tick_hz is a real duration on the device.
    """

    label: MeasurementLabel
    instructions_per_tick: float | None = None
    ticks_are_time: bool = False


class Port(Protocol):
    """An open byte stream to a device.

    `name` says what is at the other end, for messages and measurements. `kind` is how it was asked
    for.
    """

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> PortKind: ...

    @property
    def clock(self) -> Clock: ...

    def write(self, data: bytes, timeout_s: float) -> None:
        """Sends all of `data`.

        Raises:
            DeviceTimeout: the other end does not take it.
            DeviceFault: the other end is gone.
        """
        ...

    def read(self, timeout_s: float) -> bytes:
        """What has arrived, at most 4096 bytes; b"" after `timeout_s` of silence.

        Raises:
            DeviceFault: the other end is gone.
        """
        ...

    def check(self) -> None:
        """Raises DeviceFault when the device is known to have crashed."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class CountsWork(Protocol):
    """A port that also sees what the core executes: the virtual board."""

    def take_work(self) -> Work | None:
        """What the model executed since the last call; None when that is nothing."""
        ...
