"""What is done when no plan of the search fits: thinner networks, factors, students."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from edgecompress.compress.quantize import quantize
from edgecompress.compress.student import student_for
from edgecompress.errors import DoesNotFit
from edgecompress.model.data import Dataset, Splits
from edgecompress.plan import last_resort
from edgecompress.plan.last_resort import find_plan
from edgecompress.plan.ledger import keep_ledger
from edgecompress.plan.realize import realize
from edgecompress.plan.scores import Scorer
from edgecompress.plan.search import Found
from edgecompress.plan.trials import Trial, calibration_samples
from edgecompress.records import Budget, Plan, Prediction, StudentChoice, WeightStorage
from edgecompress.target import load_target

PROFILE = load_target("cortex-m4")


class Dense(nn.Module):
    """Flat 8x8 images through 64 -> 96 -> 96 -> 3: nothing but weights."""

    def __init__(self, softmax: bool = False) -> None:
        super().__init__()
        layers = [nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 3)]
        self.layers = nn.Sequential(*layers, *([nn.Softmax(dim=1)] if softmax else []))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def flat(splits: Splits, *, labelled: bool = True) -> Splits:
    def part(data: Dataset) -> Dataset:
        return Dataset(data.x.reshape(len(data), -1), data.y if labelled else None)

    return replace(
        splits,
        train=part(splits.train), validation=part(splits.validation), test=part(splits.test),
    )  # fmt: skip


@pytest.fixture
def dense(as_trainable, splits):
    """A classifier that has learnt its three classes."""
    torch.manual_seed(0)
    network = Dense().train()
    x, y = torch.from_numpy(flat(splits).train.x), torch.from_numpy(splits.train.y)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    return as_trainable(network, (1, 64))


def refused(*_given, **_more):
    raise DoesNotFit("Nothing fits.", resource="flash", needed=2, limit=1, next_step="Raise it.")


@pytest.mark.parametrize("labelled", [True, False])
def test_a_student_takes_the_models_place(dense, splits, monkeypatch, labelled):
    """Where neither the search nor thinner forms of the model find anything."""
    data = flat(splits, labelled=labelled)
    monkeypatch.setattr(last_resort, "search", refused)
    monkeypatch.setattr(last_resort._LastResort, "compressed", lambda self: iter(()))
    found = find_plan(dense, data, PROFILE, Budget(flash_bytes=8_000), model_hash="1" * 64, seed=1)
    plan = found.plan
    assert plan.student is not None
    assert plan.student.family == "mlp"
    assert plan.predicted.flash_bytes <= 8_000
    assert [trial.name for trial in found.trials] == [f"student {plan.student.name}"]
    assert ("no labels" in found.objective) == (not labelled)
    short = plan.model_copy(update={"finetune_steps": 300})
    trained = realize(dense, short, data)
    right = trained.graph(torch.from_numpy(data.test.x)).argmax(1).numpy() == splits.test.y
    assert right.mean() > 0.75
    scorer, calibration = Scorer.of_source(dense, data), calibration_samples(data, 1)
    deployable = quantize(trained, calibration.numpy(), name="student")
    ledger = keep_ledger(dense, short, trained, deployable, scorer, calibration)
    assert [stage.stage for stage in ledger] == ["source", "student", "quantize"]


@pytest.mark.parametrize("weights", [2_000, 1_000])
def test_students_compete_where_hardly_anything_is_left(dense, splits, monkeypatch, weights):
    """The model has 15,648 weights: a plan that keeps 2,000 bytes of them stands."""
    predicted = Prediction(flash_bytes=9_000, ram_bytes=900, flash_parts={"weights": weights})
    plan = Plan(
        model_hash="1" * 64, data_hash=splits.hash, target="cortex-m4", budget=Budget(), seed=0,
        effort="fast", predicted=predicted, weights={"layers_0": WeightStorage(format="int4")},
    )  # fmt: skip
    asked = []
    monkeypatch.setattr(last_resort, "search", lambda *_given, **_more: Found(plan=plan))
    monkeypatch.setattr(
        last_resort._LastResort, "students", lambda self: asked.append(self) or iter(())
    )
    found = find_plan(dense, flat(splits), PROFILE, Budget(flash_bytes=9_000), model_hash="1" * 64)
    assert found.plan == plan
    assert bool(asked) == (weights == 1_000)


def test_what_nothing_fits_names_the_smallest_thing_tried(dense, splits, monkeypatch):
    monkeypatch.setattr(last_resort, "search", refused)
    with pytest.raises(DoesNotFit) as caught:
        find_plan(dense, flat(splits), PROFILE, Budget(flash_bytes=4_700), model_hash="1" * 64)
    message = str(caught.value)
    assert "The smallest thing tried, " in message
    assert message.startswith("Nothing fits.")
    assert message.endswith("Raise it.")


@pytest.mark.parametrize(("budget", "words"), [
    (Budget(flash_bytes=2_000), "The runtime alone takes .* of flash"),
    (Budget(ram_bytes=300), "The runtime alone takes .* of RAM"),
])  # fmt: skip
def test_less_than_the_runtime_is_refused_at_once(dense, splits, monkeypatch, budget, words):
    monkeypatch.setattr(last_resort, "search", None)
    with pytest.raises(DoesNotFit, match=words):
        find_plan(dense, flat(splits), PROFILE, budget, model_hash="1" * 64)


def test_a_student_ends_as_its_model_does(as_trainable):
    choice = StudentChoice(family="mlp", width=8, depth=1)
    plain = student_for(as_trainable(Dense(), (1, 64)), choice, 3)
    ended = student_for(as_trainable(Dense(softmax=True), (1, 64)), choice, 3)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32))
    with torch.no_grad():
        torch.testing.assert_close(ended.graph(x), plain.graph(x).softmax(1))
    assert (ended.input_name, ended.output_name) == ("x", "y")


def test_a_student_is_a_trial_of_its_own():
    plan = Plan(
        model_hash="1" * 64, data_hash="2" * 64, target="cortex-m4", budget=Budget(), seed=0,
        effort="fast", predicted={"flash_bytes": 1, "ram_bytes": 1},
    )  # fmt: skip
    choices = [None, StudentChoice(family="mlp", width=8, depth=1),
               StudentChoice(family="mlp", width=12, depth=1)]  # fmt: skip
    named = {Trial.address(plan.model_copy(update={"student": one}), "top-1 %") for one in choices}
    assert len(named) == 3
