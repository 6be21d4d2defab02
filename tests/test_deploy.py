"""Time estimates: by the core's cycle model where its blocks were seen, else by instructions."""

from __future__ import annotations

import pytest

from edgecompress.deploy import estimate_time
from edgecompress.records import CycleEstimate
from edgecompress.target import load_target


def test_cycles_come_before_instructions_and_name_their_model() -> None:
    profile = load_target("cortex-m4")
    cycles = CycleEstimate(low=1_200_000, high=2_400_000, model="a table")
    estimate = estimate_time(profile, 5, cycles)
    assert estimate is not None
    assert estimate.low_us == pytest.approx(10_000)
    assert estimate.high_us == pytest.approx(20_000)
    assert estimate.source == "a table"


def test_without_cycles_instructions_are_scaled() -> None:
    profile = load_target("cortex-m4")
    estimate = estimate_time(profile, 1_200_000)
    assert estimate is not None
    assert profile.core.cycles_per_instruction is not None
    low, high = profile.core.cycles_per_instruction
    assert estimate.low_us == pytest.approx(10_000 * low)
    assert estimate.high_us == pytest.approx(10_000 * high)
    assert estimate.source == profile.core.cycles_source
    assert estimate_time(profile, None) is None
