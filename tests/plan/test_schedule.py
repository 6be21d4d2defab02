"""Steps follow the inverse of the MACs, within bounds of each effort."""

from __future__ import annotations

import pytest

from edgecompress.plan.schedule import REFERENCE_MACS, schedule_of


@pytest.mark.parametrize(
    ("effort", "usual", "most"), [("fast", 220, 3200), ("balanced", 1400, 9300)]
)
def test_light_models_train_longer_up_to_the_most_and_heavy_ones_shorter(effort, usual, most):
    def steps(macs: float) -> int:
        return schedule_of(effort, round(macs)).final_steps

    assert steps(REFERENCE_MACS) == usual
    assert steps(REFERENCE_MACS / 4) == 4 * usual
    assert steps(REFERENCE_MACS / 1000) == most
    assert steps(2 * REFERENCE_MACS) == usual / 2
    assert steps(1e12) == schedule_of(effort, 10**12).least_steps


@pytest.mark.parametrize(("effort", "usual", "most"), [("fast", 22, 80), ("balanced", 80, 213)])
def test_candidates_are_judged_within_the_same_bounds(effort, usual, most):
    def steps(macs: float) -> int:
        return schedule_of(effort, round(macs)).judge_steps

    assert steps(REFERENCE_MACS) == usual
    assert steps(REFERENCE_MACS / 2) == 2 * usual
    assert steps(REFERENCE_MACS / 1000) == most
    assert steps(1e12) == schedule_of(effort, 10**12).least_steps
