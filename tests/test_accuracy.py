"""How many test samples a device runs beside the host."""

from __future__ import annotations

import pytest

from edgecompress.accuracy import DEVICE_SAMPLES, device_samples
from edgecompress.records import Measurement, MeasurementLabel


@pytest.mark.parametrize(
    ("label", "instructions", "samples"),
    [
        ("emulated instructions", 1_000_000, DEVICE_SAMPLES),
        ("emulated instructions", 25_000_000, 16),
        ("emulated instructions", 2_000_000_000, 8),
        ("emulated instructions", None, DEVICE_SAMPLES),
        ("measured on device", 2_000_000_000, DEVICE_SAMPLES),
    ],
)
def test_a_heavy_model_under_emulation_runs_fewer_samples(
    label: MeasurementLabel, instructions: int | None, samples: int
) -> None:
    measured = Measurement(device="any", label=label, instructions=instructions)
    assert device_samples(measured) == samples
