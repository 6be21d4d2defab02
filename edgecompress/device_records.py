"""What is known of the devices around: found ones, phones under measurement, flashed boards."""

from __future__ import annotations

from typing import Literal

from edgecompress.record_base import Record

FoundKind = Literal["serial", "adb", "probe", "virtual"]


class FoundDevice(Record):
    """Something `edgecompress devices` found.

    `address` is what `--device` takes; a probe's is what `flash --probe` takes. `state` is "ready",
    or in a few words why it cannot be used. `likely_targets` are names of targets, best first;
    empty where the hardware does not tell. `details` are what the operating system or the tool
    says of it. `model` is the model hash it answered with, where it was asked.
    """

    kind: FoundKind
    address: str
    description: str
    likely_targets: tuple[str, ...] = ()
    state: str = "ready"
    details: dict[str, str] = {}
    model: str = ""


class CpuCluster(Record):
    """Cores of an adb device that share one clock (a Linux cpufreq policy).

    `name` is "all" where there is only one, else "little" to "big" by the highest clock. Figures
    the device does not let adb read are None, texts "".
    """

    name: str
    cpus: tuple[int, ...]
    governor: str = ""
    min_frequency_hz: int | None = None
    max_frequency_hz: int | None = None
    frequency_hz: int | None = None


class AdbConditions(Record):
    """What an adb device was like before and after a measurement.

    `pinned_cluster` and `pinned_cpus` say where the runner was kept; empty: anywhere. Temperatures
    are by thermal zone, in degrees Celsius.
    """

    serial: str
    model: str = ""
    system: str = ""
    kernel: str = ""
    machine: str = ""
    pinned_cluster: str = ""
    pinned_cpus: tuple[int, ...] = ()
    clusters_before: tuple[CpuCluster, ...] = ()
    clusters_after: tuple[CpuCluster, ...] = ()
    temperatures_before_c: dict[str, float] = {}
    temperatures_after_c: dict[str, float] = {}


class FlashReport(Record):
    """What `flash` programmed, and that it was read back equal.

    `tool` is "pyocd", "stm32loader", "esptool" or "uf2"; `where` the probe, port or drive.
    `verified` says how the result was checked; a UF2 drive cannot be read back.
    """

    tool: str
    where: str
    target: str
    chip: str
    firmware_hash: str
    flash_bytes: int
    seconds: float
    verified: str
