"""Steps follow the inverse of the MACs, within bounds of each effort."""

from __future__ import annotations

import pytest

from edgecompress.plan.schedule import REFERENCE_MACS, schedule_of


@pytest.mark.parametrize(
    ("effort", "kind", "usual", "most"),
    [
        ("fast", "final_steps", 220, 3200),
        ("balanced", "final_steps", 1400, 9300),
        ("fast", "judge_steps", 22, 80),
        ("balanced", "judge_steps", 80, 213),
    ],
)
def test_light_models_train_longer_up_to_the_most_and_heavy_ones_shorter(effort, kind, usual, most):
    def steps(macs: float) -> int:
        return getattr(schedule_of(effort, round(macs)), kind)

    assert steps(REFERENCE_MACS) == usual
    assert steps(REFERENCE_MACS / 2) == 2 * usual
    assert steps(REFERENCE_MACS / 4) == min(4 * usual, most)
    assert steps(REFERENCE_MACS / 1000) == most
    least = schedule_of(effort, 10**12).least_steps
    assert steps(2 * REFERENCE_MACS) == max(usual / 2, least)
    assert steps(1e12) == least
