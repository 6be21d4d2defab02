"""Recurrent layers are planned like any other: their widths are choices, their sizes follow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgecompress.compress.prune import prune
from edgecompress.model.export import export_module
from edgecompress.model.load import Source
from edgecompress.model.normalize import normalize
from edgecompress.model.trainable import Trainable, to_trainable
from edgecompress.plan.candidates import Problem, optimum, uniform
from edgecompress.plan.cost import predict
from edgecompress.plan.network import prunable_groups, read_network
from edgecompress.plan.preview import preview
from edgecompress.plan.probes import all_probes
from edgecompress.plan.sensitivity import measure, unmeasured
from edgecompress.progress import SILENT
from edgecompress.records import Budget
from edgecompress.target import load_target

PROFILE = load_target("cortex-m4")
X = torch.from_numpy(np.random.default_rng(0).normal(size=(24, 12, 6)).astype(np.float32))


class Stacked(nn.Module):
    """A bidirectional LSTM, a GRU on both directions' states, its last state classified."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.LSTM(6, 16, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(32, 24, batch_first=True)
        self.head = nn.Linear(24, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.gru(self.both(x)[0])
        return self.head(states[:, -1])


@pytest.fixture(scope="module")
def stacked() -> Trainable:
    torch.manual_seed(0)
    exported = normalize(export_module(Stacked(), (1, 12, 6), "net"), "net", None)
    return to_trainable(Source("net", "float", exported, None, ""))


@pytest.fixture(scope="module")
def problem(stacked) -> Problem:
    return Problem(read_network(stacked, prunable_groups(stacked)), PROFILE, Budget(), {})


def test_every_recurrent_layer_is_a_group(stacked):
    channels = sorted(group.channels for group in prunable_groups(stacked))
    assert channels == [16, 16, 24]


def test_sizes_at_other_widths_are_those_of_the_pruned_model(stacked, problem):
    widths = dict(zip([group.name for group in prunable_groups(stacked)], (8, 12, 16), strict=True))
    planned = problem.predict(widths)
    pruned = prune(stacked, widths)
    assert planned == predict(pruned, PROFILE)
    compiled, whole = (preview(model, X.numpy(), PROFILE) for model in (pruned, stacked))
    assert planned.macs == compiled.macs
    saved = problem.predict({}).flash_parts["weights"] - planned.flash_parts["weights"]
    really = whole.flash_parts["weights"] - compiled.flash_parts["weights"]
    assert saved == pytest.approx(really, rel=0.05)


def test_a_probe_computes_what_the_pruned_model_does(stacked, problem):
    groups = prunable_groups(stacked)
    probes = [p for p in all_probes(stacked, problem.network, groups, X, ()) if p.kind == "width"]
    assert {probe.name for probe in probes} == {group.name for group in groups}
    for probe in probes:
        with probe.changed() as model, torch.no_grad():
            made = model.graph(X)
        pruned = prune(stacked, {probe.name: probe.option})
        with torch.no_grad():
            torch.testing.assert_close(made, pruned.graph(X), atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        before = stacked.graph(X)
    assert not torch.equal(made, before)


@pytest.mark.parametrize("share", [0.8, 0.6])
def test_flash_is_met_by_the_widths_that_cost_least(stacked, problem, share):
    whole = problem.predict({})
    budget = Budget(flash_bytes=int(share * whole.flash_bytes))
    tight = Problem(problem.network, PROFILE, budget, {})
    groups = prunable_groups(stacked)
    choices = measure(stacked, problem.network, groups, X, SILENT)
    found = optimum(tight, choices, "joint")
    assert found is not None
    assert found.predicted.flash_bytes <= budget.flash_bytes
    assert any(found.widths[group.name] < group.channels for group in groups)
    same = uniform(tight, unmeasured(groups))
    assert same is not None
    assert damage_of(choices, found.widths) <= damage_of(choices, same.widths) + 1e-6


def damage_of(choices, widths) -> float:
    return sum(
        choices.width_damage[group][choices.widths[group].index(width)]
        if width in choices.widths[group]
        else 0.0
        for group, width in widths.items()
    )
