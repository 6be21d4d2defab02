"""What was measured of an image on a device, and everything needed to measure it again."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgecompress.device_records import AdbConditions
from edgecompress.record_base import SCHEMA_VERSION, Record

MeasurementLabel = Literal[
    "measured on device", "emulated instructions", "estimated cycles", "predicted"
]
Count = Annotated[int, Field(ge=0, lt=1 << 64)]
"""What a device or an emulator counts; files from elsewhere hold nothing larger either."""


class CycleEstimate(Record):
    """A range of core cycles from exact block counts and the model named."""

    low: int
    high: int
    model: str


class TimeStatistics(Record):
    """Repeated timings of one inference, in microseconds of the device's own clock.

    `resolution_us` is one tick of the timer read. Quartiles and the 99th percentile interpolate
    linearly between order statistics. `mean_low_us` to `mean_high_us` is the 95 % interval of the
    mean by Student's t, which takes the runs as independent; a single run has none. `outliers`
    counts the runs outside `fence_low_us` to `fence_high_us`, Tukey's fences 1.5 interquartile
    ranges beyond the quartiles: they are kept in every figure here.
    """

    runs: int
    resolution_us: float
    median_us: float
    quartile_low_us: float
    quartile_high_us: float
    min_us: float
    max_us: float
    p99_us: float
    mean_us: float
    mean_low_us: float | None
    mean_high_us: float | None
    outliers: int
    fence_low_us: float
    fence_high_us: float

    @property
    def iqr_us(self) -> float:
        """The interquartile range: the middle half of the runs lies within it."""
        return self.quartile_high_us - self.quartile_low_us


class Build(Record):
    """What made a firmware: compilers, flags, and the packages that generated its code."""

    compiler: str
    flags: tuple[str, ...] = ()
    versions: dict[str, str] = {}


class HostMachine(Record):
    """The computer that drove the measurement; for `--device process` it is the device too."""

    system: str
    machine: str
    processor: str = ""
    governor: str = ""


class Provenance(Record):
    """Where a measurement comes from, in enough detail to repeat it.

    `artifact_hash` is the sha256 of image.json, which names everything in the folder that runs.
    `clock_source` says how the firmware knows `clock_hz` ("configured", "registers", "host", ""
    where it does not say); `rated_clock_hz` is what the target's description states. `settings`
    are the firmware's own words for what changes speed. `retransmissions` counts the protocol
    lines sent again because a checksum or a sequence number did not agree, `resets` how often the
    device started again on the way. `conditions` is what a phone's system let us see.
    """

    artifact_hash: str
    firmware_hash: str
    model_hash: str
    model_name: str
    target: str
    requantize: str
    flash_bytes: Count
    ram_bytes: Count
    device_id: str = ""
    port: str
    port_name: str = ""
    clock_hz: Count
    clock_source: str = ""
    rated_clock_hz: Count
    tick_hz: Count
    settings: dict[str, str] = {}
    build: Build | None = None
    voltage_v: float | None = None
    note: str = ""
    host: HostMachine
    versions: dict[str, str] = {}
    time_utc: str
    retransmissions: int = 0
    resets: int = 0
    conditions: AdbConditions | None = None


class LayerMeasurement(Record):
    """One step's cost; `macs` and `implementation` are the image's own description of it.

    `ticks` is the median of the passes over the layers, `low_ticks` and `high_ticks` the least
    and the most of them.
    """

    index: int
    name: str
    ticks: Count
    macs: int = 0
    implementation: str = ""
    cycles: CycleEstimate | None = None
    low_ticks: Count | None = None
    high_ticks: Count | None = None


class Measurement(Record):
    """One inference's cost, and what kind of number it is.

    `words` counts every register moved by a wide load or store as one instruction. `ticks` are the
    timer's readings of every run in order, warm-up left out; `instructions_per_tick` is set where
    they count instructions. `time` is there only where ticks are time. `incomplete` says why
    fewer runs were made than asked for; `warnings` what makes the figure doubtful.
    """

    schema_version: int = SCHEMA_VERSION
    device: str
    label: MeasurementLabel
    instructions: Count | None = None
    words: Count | None = None
    cycles: CycleEstimate | None = None
    latency_us: float | None = None
    runs: int = 1
    stack_high_water_bytes: int | None = None
    layers: tuple[LayerMeasurement, ...] = ()
    warmup: int = 0
    ticks: tuple[Count, ...] = ()
    instructions_per_tick: float | None = None
    time: TimeStatistics | None = None
    provenance: Provenance | None = None
    incomplete: str = ""
    warnings: tuple[str, ...] = ()


class FleetMember(Record):
    """One device of several: its measurement, or why there is none.

    `device` is what was asked for.
    """

    device: str
    measurement: Measurement | None = None
    error_kind: str = ""
    error: str = ""


class Fleet(Record):
    """Several devices measured at the same time, in the order they were asked for."""

    schema_version: int = SCHEMA_VERSION
    members: tuple[FleetMember, ...]

    @property
    def measured(self) -> tuple[Measurement, ...]:
        return tuple(one.measurement for one in self.members if one.measurement is not None)

    @property
    def complete(self) -> bool:
        return len(self.measured) == len(self.members)


class Interval(Record):
    """A ratio with the interval it lies in; `exact` ratios of counts have no width."""

    value: float
    low: float
    high: float
    exact: bool = False

    @property
    def resolved(self) -> bool:
        """Whether the interval excludes "no difference"."""
        return not self.low <= 1.0 <= self.high


class LayerRatio(Record):
    """One layer of both images; None where only one of them has it.

    Costs are in the comparison's unit; `ratio` is second over first.
    """

    name: str
    first: float | None
    second: float | None
    ratio: float | None


class Comparison(Record):
    """Two measurements of like kind, second over first.

    `unit` is that of `first` and `second`: "instructions" or "us". `method` says what `ratio`'s
    interval is. `differs` lists what is not the same between the two, `allowed` the differences
    the user asked to compare across, `forced` those that would have been refused.
    """

    first_name: str
    second_name: str
    label: MeasurementLabel
    unit: Literal["instructions", "us"]
    first: float
    second: float
    ratio: Interval
    method: str
    layers: tuple[LayerRatio, ...] = ()
    flash_bytes: tuple[int, int]
    ram_bytes: tuple[int, int]
    differs: dict[str, tuple[str, str]] = {}
    allowed: tuple[str, ...] = ()
    forced: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
