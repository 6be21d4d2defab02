"""What makes a measured time doubtful, each as one sentence with the number and its bound."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from edgecompress.device_records import CpuCluster
from edgecompress.records import Provenance, TimeStatistics
from edgecompress.units import format_us

SPREAD_LIMIT = 0.05
"""Interquartile range over median."""
CLOCK_LIMIT = 0.01
"""Difference of the device's clock from the target's rated one, as a fraction."""
RESOLUTION_LIMIT = 0.01
"""One tick over the median."""
DRIFT_LIMIT = 0.03
"""Median of the second half of the runs against that of the first half."""
_DRIFT_RUNS = 10
_WALL_LIMIT = 1.01

_SPEEDS_UP = ("cache", "prefetch")
"""Endings of settings that make a core fast when on: "icache", "xip_cache"."""
_OFF = ("off", "0", "no")
_OSCILLATORS = ("oscillator", "hfclk")
_INTERNAL = ("internal", "rc", "fallback")


def doubts_of_time(
    time: TimeStatistics, ticks: Sequence[int], *, wall_seconds: float | None = None
) -> list[str]:
    """What the timings themselves show.

    Args:
        ticks: the readings in order.
        wall_seconds: how long the host waited for all of these runs; a device cannot have been
            busy for longer, unless its clock is not what it believes.
    """
    found = []
    if time.median_us <= 0:
        return [f"The timer did not advance: one tick is {format_us(time.resolution_us)}."]
    if (spread := time.iqr_us / time.median_us) > SPREAD_LIMIT:
        found.append(
            f"The middle half of the runs spans {100 * spread:.1f} % of the median, above "
            f"{100 * SPREAD_LIMIT:.0f} %: something else runs on the device, or its clock moves."
        )
    if (coarse := time.resolution_us / time.median_us) > RESOLUTION_LIMIT:
        found.append(
            f"One tick of the timer is {100 * coarse:.1f} % of the median, above "
            f"{100 * RESOLUTION_LIMIT:.0f} %: smaller differences cannot be seen."
        )
    found += _drift(ticks)
    own_seconds = time.mean_us * time.runs / 1e6
    if wall_seconds is not None and own_seconds > wall_seconds * _WALL_LIMIT:
        found.append(
            f"The device reports {own_seconds:.3g} s of work in {wall_seconds:.3g} s of the host's "
            "time: its timer runs faster than it says."
        )
    return found


def _drift(ticks: Sequence[int]) -> list[str]:
    if len(ticks) < _DRIFT_RUNS:
        return []
    half = len(ticks) // 2
    before, after = statistics.median(ticks[:half]), statistics.median(ticks[half:])
    if before <= 0 or abs(after / before - 1) <= DRIFT_LIMIT:
        return []
    return [
        f"The second half of the runs took {100 * (after / before - 1):+.1f} % against the first, "
        f"beyond {100 * DRIFT_LIMIT:.0f} %: warming up, throttling, or another load."
    ]


def doubts_of_device(origin: Provenance) -> list[str]:
    """What the device's clock and settings show. Emulators have neither."""
    found = []
    rated, clock = origin.rated_clock_hz, origin.clock_hz
    on_a_board = origin.clock_source != "host" and origin.port not in ("process", "adb")
    if on_a_board and clock and abs(clock / rated - 1) > CLOCK_LIMIT:
        found.append(
            f"The core runs at {clock / 1e6:g} MHz, the target is rated at {rated / 1e6:g} MHz "
            f"({100 * (clock / rated - 1):+.1f} %, beyond {100 * CLOCK_LIMIT:.0f} %)."
        )
    settings = {key.lower(): value.lower() for key, value in origin.settings.items()}
    off = [key for key, value in settings.items() if key.endswith(_SPEEDS_UP) and value in _OFF]
    if off:
        found.append(f"Off on the device: {', '.join(off)}.")
    failed = [key for key, value in settings.items() if value == "failed"]
    if failed:
        found.append(f"Failed to start on the device: {', '.join(failed)}.")
    for key in _OSCILLATORS:
        if settings.get(key) in _INTERNAL:
            found.append(
                f"The clock comes from an internal oscillator ({key}={settings[key]}), which may "
                "be a percent or more off what the firmware believes."
            )
    found += _throttled(origin)
    governors = _governors(origin)
    if changing := sorted(governors - {"performance", "userspace"}):
        found.append(
            f"The CPU's governor is {', '.join(changing)}: it may change the clock between runs."
        )
    return found


def _governors(origin: Provenance) -> set[str]:
    """Of the CPUs the image may have run on; empty where unknown."""
    if origin.port == "process":
        return {origin.host.governor} - {""}
    return {cluster.governor for cluster in _clusters_used(origin)} - {""}


def _clusters_used(origin: Provenance) -> list[CpuCluster]:
    conditions = origin.conditions
    if conditions is None:
        return []
    pinned = set(conditions.pinned_cpus)
    return [one for one in conditions.clusters_after if not pinned or pinned & set(one.cpus)]


def _throttled(origin: Provenance) -> list[str]:
    """Clusters told to run at their highest clock that do not."""
    return [
        f"The {cluster.name} cluster ran at {cluster.frequency_hz / 1e6:g} MHz of "
        f"{cluster.max_frequency_hz / 1e6:g} MHz: throttled."
        for cluster in _clusters_used(origin)
        if cluster.governor == "performance"
        and cluster.frequency_hz
        and cluster.max_frequency_hz
        and cluster.frequency_hz < cluster.max_frequency_hz * (1 - CLOCK_LIMIT)
    ]
