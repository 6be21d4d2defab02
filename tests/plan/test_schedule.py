"""Steps follow the inverse of the MACs, within bounds of each effort; of heavy ones in `fast`
MACs^-1.5."""

from __future__ import annotations

import pytest

from edgecompress.plan.schedule import REFERENCE_MACS, schedule_of


def steps_of(effort, kind: str, macs: float) -> int:
    return getattr(schedule_of(effort, round(macs)), kind)


@pytest.mark.parametrize(
    ("effort", "kind", "usual", "most"),
    [
        ("fast", "final_steps", 440, 3200),
        ("balanced", "final_steps", 2800, 9300),
        ("fast", "judge_steps", 44, 80),
        ("balanced", "judge_steps", 160, 213),
    ],
)
def test_light_models_train_longer_up_to_the_most_and_heavy_ones_shorter(effort, kind, usual, most):
    def steps(macs: float) -> int:
        return steps_of(effort, kind, macs)

    assert steps(REFERENCE_MACS / 2) == usual
    assert steps(REFERENCE_MACS / 4) == min(2 * usual, most)
    assert steps(REFERENCE_MACS / 1000) == most
    assert steps(1e12) == schedule_of(effort, 10**12).least_steps


@pytest.mark.parametrize(("effort", "power"), [("fast", -1.5), ("balanced", -1), ("max", -1)])
def test_only_fast_spares_heavy_models_their_other_costs(effort, power) -> None:
    light, heavy = (steps_of(effort, "final_steps", macs) for macs in (1.5e7, 6e7))
    assert heavy == pytest.approx(light * 4**power, rel=0.01)
