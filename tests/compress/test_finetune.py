from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_networks import Mobile, Residual, seeded, stripes
from torch import nn

from edgecompress.compress.batchnorm import reestimate
from edgecompress.compress.finetune import Recipe, distill
from edgecompress.compress.prune import prune
from edgecompress.errors import BadData, EdgeCompressError
from edgecompress.model.data import Dataset, Splits
from edgecompress.model.trainable import Trainable


@pytest.fixture(scope="module")
def splits() -> Splits:
    return Splits(stripes(600, 0), stripes(200, 1), stripes(200, 2), "", "stripes")


@pytest.fixture(scope="module")
def teacher(splits: Splits) -> Trainable:
    """Trained by the same function with itself as teacher, so mostly by its labels."""
    untrained = seeded(Residual)
    return distill(
        untrained, untrained, splits, steps=90, seed=0, recipe=Recipe(learning_rate=8e-3)
    )


def accuracy(trainable: Trainable, data: Dataset) -> float:
    with torch.no_grad():
        guess = trainable.graph.eval()(torch.from_numpy(data.x)).argmax(1).numpy()
    return 100.0 * float(np.mean(guess == data.y))


class Count:
    steps = 0

    def stage(self, name: str, total: int | None = None) -> None: ...

    def advance(self, done: int = 1) -> None:
        self.steps += done

    def note(self, message: str) -> None: ...


def test_a_damaged_student_recovers(teacher: Trainable, splits: Splits) -> None:
    student = prune(teacher, {"stem": 5, "conv1": 4, "conv3": 8})
    damaged = accuracy(student, splits.test)
    progress = Count()
    tuned = distill(
        student,
        teacher,
        splits,
        steps=60,
        seed=1,
        recipe=Recipe(learning_rate=5e-3),
        progress=progress,
    )
    assert accuracy(teacher, splits.test) > 95
    assert accuracy(tuned, splits.test) > max(90.0, damaged + 5)
    assert progress.steps == 60
    assert not tuned.graph.training


def test_the_same_seed_gives_the_same_weights(teacher: Trainable, splits: Splits) -> None:
    student = prune(teacher, {"conv3": 6})
    first, again, other = (
        distill(student, teacher, splits, steps=8, seed=seed).graph.state_dict()
        for seed in (3, 3, 4)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_arguments_are_untouched(teacher: Trainable, splits: Splits) -> None:
    before = copy.deepcopy(teacher.graph.state_dict())
    distill(teacher, teacher, splits, steps=3, seed=0)
    after = teacher.graph.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_never_worse_on_validation_than_before(teacher: Trainable, splits: Splits) -> None:
    ruinous = distill(teacher, teacher, splits, steps=10, seed=0, recipe=Recipe(learning_rate=3.0))
    assert accuracy(ruinous, splits.validation) >= accuracy(teacher, splits.validation)


def test_without_labels_the_student_follows_the_teacher(splits: Splits) -> None:
    teacher = reestimate(seeded(Mobile, seed=1), torch.from_numpy(splits.train.x))
    with torch.no_grad():  # an untrained softmax is nearly uniform: nothing to learn from
        teacher.graph.get_submodule("head").weight.mul_(20)
    student = prune(teacher, {"stem": 4, "pointwise": 6})
    bare = [Dataset(part.x, None) for part in (splits.train, splits.validation, splits.test)]
    unlabelled = replace(splits, **dict(zip(("train", "validation", "test"), bare, strict=True)))
    tuned = distill(
        student, teacher, unlabelled, steps=40, seed=0, recipe=Recipe(learning_rate=3e-3)
    )
    x = torch.from_numpy(splits.test.x)
    with torch.no_grad():
        target = teacher.graph(x)
        before, after = ((one.graph(x) - target).square().mean() for one in (student, tuned))
    assert after < 0.7 * before


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.encode = nn.Linear(256, 32)
        self.relu = nn.ReLU()
        self.decode = nn.Linear(32, 256)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decode(self.relu(self.encode(self.flatten(x))))


def test_an_autoencoder_learns_by_squared_error(splits: Splits) -> None:
    teacher = seeded(Autoencoder)
    student = prune(teacher, {"encode": 24})
    train, validation = (Dataset(part.x, None) for part in (splits.train, splits.validation))
    unlabelled = replace(splits, train=train, validation=validation)
    tuned = distill(
        student, teacher, unlabelled, steps=40, seed=0, recipe=Recipe(learning_rate=3e-3)
    )
    x = torch.from_numpy(splits.test.x)
    with torch.no_grad():
        target = teacher.graph(x)
        before, after = ((one.graph(x) - target).square().mean() for one in (student, tuned))
    assert after < 0.8 * before


def test_divergence_is_reported(teacher: Trainable, splits: Splits) -> None:
    broken = copy.deepcopy(teacher)
    with torch.no_grad():
        broken.graph.get_submodule("head").weight.fill_(float("nan"))
    with pytest.raises(EdgeCompressError, match="diverged: the loss is nan at step 1"):
        distill(broken, teacher, splits, steps=2, seed=0)


def test_bad_training_data_is_refused(teacher: Trainable, splits: Splits) -> None:
    assert splits.train.y is not None
    nan = Dataset(np.full_like(splits.train.x, np.nan), splits.train.y)
    labels = Dataset(splits.train.x, splits.train.y + 1)
    empty = Dataset(splits.train.x[:0], splits.train.y[:0])
    for data, words in ((nan, "NaN"), (labels, "1 to 4"), (empty, "no training data")):
        with pytest.raises(BadData, match=words):
            distill(teacher, teacher, replace(splits, train=data), steps=2, seed=0)
