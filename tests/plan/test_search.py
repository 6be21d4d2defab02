from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from edgecompress.errors import BadConfig, BadData, DoesNotFit, EdgeCompressError
from edgecompress.model.data import Dataset, Splits
from edgecompress.plan.network import prunable_groups
from edgecompress.plan.preview import preview
from edgecompress.plan.realize import realize
from edgecompress.plan.search import search
from edgecompress.plan.sensitivity import curve, damage, outputs, width_slope
from edgecompress.progress import Silent
from edgecompress.records import Budget, Plan
from edgecompress.target import load_target

PROFILE = load_target("cortex-m7")
TIGHT = Budget(flash_bytes=13_300, ram_bytes=2_300)


class Notes(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)


def planned(trainable, splits, budget: Budget, seed: int = 0) -> Plan:
    return search(trainable, splits, PROFILE, budget, model_hash="1" * 64, seed=seed).plan


def test_what_fits_in_int8_is_left_alone(residual, splits):
    plan = planned(residual, splits, Budget(flash_bytes=20_000, ram_bytes=8_000))
    assert (plan.widths, plan.low_rank, plan.finetune_steps) == ({}, {}, 0)
    assert realize(residual, plan, splits) is residual


def test_a_tight_budget_is_met_reproducibly(residual, splits):
    budget = TIGHT
    plan = planned(residual, splits, budget)
    assert plan.widths or plan.low_rank or plan.weights
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
        search(
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


class Rigid(nn.Module):
    """One layer, whose outputs are the model's: nothing to prune, nothing to store in int4."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.only(torch.flatten(x, 1))


def test_a_model_with_nothing_to_prune_is_told_so(as_trainable, splits):
    rigid = as_trainable(Rigid(), (1, 1, 8, 8))
    assert prunable_groups(rigid) == []
    with pytest.raises(DoesNotFit, match="None of the model's 1 layers can be narrowed"):
        planned(rigid, splits, Budget(flash_bytes=1_000))


def test_budgets_that_contradict_each_other_name_both(residual, splits):
    """Each can be met alone; the narrowest network's arena with its weights cannot."""
    with pytest.raises(DoesNotFit) as caught:
        planned(residual, splits, Budget(flash_bytes=9_000, ram_bytes=600, latency_us=0.5))
    assert caught.value.needed > caught.value.limit
    assert "Raise" in str(caught.value) or "least that fits" in str(caught.value)


def test_labels_of_one_class_are_one_clear_line(residual, splits):
    alike = replace(splits, train=Dataset(splits.train.x, np.zeros(len(splits.train), np.int64)))
    with pytest.raises(BadData, match="class 0"):
        planned(residual, alike, TIGHT)


def test_two_samples_are_enough_to_answer(residual, splits):
    few = Dataset(splits.train.x[:2], np.array([0, 1]))
    tiny = Splits(few, Dataset(splits.train.x[2:3], np.array([1])), few, "2" * 64, "tiny")
    assert planned(residual, tiny, TIGHT).predicted.flash_bytes <= TIGHT.flash_bytes


def test_a_candidate_that_diverges_is_left_out(residual, splits, monkeypatch):
    from edgecompress.plan import trials

    real, seen = trials.distill, []

    def first_diverges(*given, **more):
        seen.append(more["weights"])
        if len(seen) == 1:
            raise EdgeCompressError("Fine-tuning diverged: the loss is nan at step 3.")
        return real(*given, **more)

    monkeypatch.setattr(trials, "distill", first_diverges)
    notes = Notes()
    found = search(
        residual, splits, PROFILE, TIGHT, model_hash="1" * 64, progress=notes,
        names=("joint", "uniform", "most compute"),
    )  # fmt: skip
    assert len(found.trials) == len(seen) - 1 >= 1
    assert any("left out" in note and "nan" in note for note in notes.said)


def test_when_all_diverge_it_is_said_and_nothing_else_breaks(residual, splits, monkeypatch):
    from edgecompress.plan import trials

    def diverges(*_given, **_more):
        raise EdgeCompressError("Fine-tuning diverged: the loss is nan at step 3.")

    monkeypatch.setattr(trials, "distill", diverges)
    with pytest.raises(EdgeCompressError, match="No candidate could be trained"):
        search(residual, splits, PROFILE, TIGHT, model_hash="1" * 64)


def test_earlier_trials_compete_under_a_new_budget(residual, splits):
    first = search(residual, splits, PROFILE, TIGHT, model_hash="1" * 64)
    assert len(first.trials) > 1
    looser = Budget(flash_bytes=TIGHT.flash_bytes + 200, ram_bytes=TIGHT.ram_bytes + 200)
    again = search(
        residual, splits, PROFILE, looser, model_hash="1" * 64, earlier=first.trials,
        names=("joint", "uniform"),
    )  # fmt: skip
    known = {trial.file_name() for trial in first.trials}
    assert known <= {trial.file_name() for trial in again.trials}
    assert again.plan.budget == looser
    foreign = search(
        residual, splits, PROFILE, looser, model_hash="3" * 64, earlier=first.trials,
        names=("joint", "uniform"),
    )  # fmt: skip
    assert not known & {trial.file_name() for trial in foreign.trials}
