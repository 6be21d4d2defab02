"""Measurements made up whole, for what reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgecompress.device.statistics import summarize
from edgecompress.records import (
    Build,
    HostMachine,
    LayerMeasurement,
    Measurement,
    Provenance,
)

MHZ = 1_000_000


def origin(**changes: Any) -> Provenance:
    fields: dict[str, Any] = {
        "artifact_hash": "a" * 64, "firmware_hash": "f" * 64, "model_hash": "c" * 64,
        "model_name": "net", "target": "stm32h743zi", "requantize": "smmla",
        "flash_bytes": 90_000, "ram_bytes": 30_000, "device_id": "0011", "port": "serial",
        "clock_hz": 480 * MHZ, "clock_source": "registers", "rated_clock_hz": 480 * MHZ,
        "tick_hz": 480 * MHZ, "settings": {"icache": "on", "dcache": "on"},
        "build": Build(compiler="zig cc 0.17.1", flags=("-Os",)),
        "host": HostMachine(system="Linux", machine="x86_64", processor="a processor"),
        "time_utc": "2026-01-02T03:04:05.678+00:00",
    }  # fmt: skip
    return Provenance(**fields | changes)


def noisy_ticks(median: int, *, runs: int = 40, scale: float = 0.002, seed: int = 0) -> list[int]:
    random = np.random.default_rng(seed)
    return [round(tick) for tick in random.normal(median, scale * median, runs)]


def timed(ticks: Sequence[int], **changes: Any) -> Measurement:
    """As from a board; `changes` are the provenance's."""
    where = origin(**changes)
    time = summarize(ticks, where.tick_hz)
    return Measurement(
        device="serial:/dev/ttyACM0", label="measured on device", latency_us=time.median_us,
        runs=len(ticks), ticks=tuple(ticks), time=time, provenance=where, warmup=1,
        layers=layers(ticks[0]),
    )  # fmt: skip


def counted(instructions: int, *, per_tick: float = 1.0, **changes: Any) -> Measurement:
    """As from an emulator."""
    ticks = (round(instructions / per_tick),) * 3
    return Measurement(
        device="virtual stm32h743zi", label="emulated instructions", instructions=instructions,
        runs=3, ticks=ticks, instructions_per_tick=per_tick, warmup=1, layers=layers(ticks[0]),
        provenance=origin(**{"port": "virtual", "device_id": "", **changes}),
    )  # fmt: skip


def layers(ticks: int) -> tuple[LayerMeasurement, ...]:
    return (
        LayerMeasurement(index=0, name="conv", ticks=3 * ticks // 4),
        LayerMeasurement(index=1, name="dense", ticks=ticks // 4),
    )
