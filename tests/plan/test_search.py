from __future__ import annotations

import pytest
import torch

from edgecompress.errors import BadConfig, DoesNotFit
from edgecompress.plan.preview import preview
from edgecompress.plan.search import make_plan, prunable_groups, realize
from edgecompress.plan.sensitivity import curve, damage, outputs, width_slope
from edgecompress.records import Budget, Plan
from edgecompress.target import load_target

PROFILE = load_target("cortex-m7")


def planned(trainable, splits, budget: Budget, seed: int = 0) -> Plan:
    return make_plan(trainable, splits, PROFILE, budget, model_hash="1" * 64, seed=seed)


def test_what_fits_in_int8_is_left_alone(residual, splits):
    plan = planned(residual, splits, Budget(flash_bytes=20_000, ram_bytes=8_000))
    assert (plan.widths, plan.low_rank, plan.finetune_steps) == ({}, {}, 0)
    assert realize(residual, plan, splits) is residual


def test_a_tight_budget_is_met_reproducibly(residual, splits):
    budget = Budget(flash_bytes=13_300, ram_bytes=2_300)
    plan = planned(residual, splits, budget)
    assert plan.widths or plan.low_rank
    assert plan.predicted.flash_bytes <= 13_300
    assert plan.predicted.ram_bytes <= 2_300
    assert planned(residual, splits, budget) == plan
    plan = plan.model_copy(update={"finetune_steps": 12})
    one, two = (realize(residual, plan, splits) for _ in range(2))
    realized = preview(one, splits.train.x, PROFILE)
    assert realized.flash_bytes == pytest.approx(plan.predicted.flash_bytes, rel=0.02)
    assert realized.ram_bytes == plan.predicted.ram_bytes
    states = [model.graph.state_dict() for model in (one, two)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize(
    ("budget", "resource", "words"),
    [
        (Budget(flash_bytes=5_000), "flash", ["4.9 KiB", "Heaviest layer: ", "--flash "]),
        (Budget(ram_bytes=900), "ram", ["900 B", "At step ", "stem", "stack", "--ram "]),
        (Budget(latency_us=1.0), "latency", ["MACs", "1 us"]),
    ],
)
def test_what_cannot_fit_is_explained(residual, splits, budget, resource, words):
    with pytest.raises(DoesNotFit) as caught:
        planned(residual, splits, budget)
    error = caught.value
    assert error.resource == resource
    assert error.needed > error.limit
    assert all(word in str(error) for word in words), str(error)


@pytest.mark.parametrize("resource", ["flash", "ram"])
def test_the_named_way_out_does_fit(residual, splits, resource):
    with pytest.raises(DoesNotFit) as caught:
        planned(residual, splits, Budget(**{f"{resource}_bytes": 1_000}))
    enough = Budget(**{f"{resource}_bytes": -(-caught.value.needed // 1024) * 1024})
    plan = planned(residual, splits, enough)
    used = plan.predicted.flash_bytes if resource == "flash" else plan.predicted.ram_bytes
    assert used <= -(-caught.value.needed // 1024) * 1024


def test_latency_needs_a_cycle_estimate(residual, splits):
    with pytest.raises(BadConfig, match="cycles_per_instruction"):
        make_plan(
            residual, splits, load_target("x86-64"), Budget(latency_us=10.0), model_hash="1" * 64
        )


def test_groups_are_the_prunable_ones(residual):
    assert [group.name for group in prunable_groups(residual)] == ["stem", "conv1"]


def test_damage_is_zero_only_for_equal_outputs(residual, splits):
    x = torch.from_numpy(splits.validation.x)
    same = outputs(residual, x)
    assert damage(same, same) == 0.0
    assert damage(same, (same + torch.randn_like(same)).log_softmax(1)) > 0.0


def test_curves_rise_as_widths_shrink_and_keep_to_the_measured_damage():
    slope = width_slope({8: 0.3, 4: 0.9}, 16)
    values = curve(slope, 16, [2, 4, 6, 8, 10, 12, 14, 16])
    assert values == sorted(values, reverse=True)
    assert values[-1] == 0.0
    assert values[3] == pytest.approx(0.3, rel=0.1)
    assert values[1] == pytest.approx(0.9, rel=0.1)
