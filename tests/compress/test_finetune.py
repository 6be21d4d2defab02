from __future__ import annotations

import copy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_networks import Mobile, Residual, seeded, stripes
from torch import nn

from edgecompress.compress.batchnorm import reestimate
from edgecompress.compress.finetune import Recipe, Task, distill
from edgecompress.compress.finetune.augment import augmented, augments
from edgecompress.compress.finetune.batches import Answers
from edgecompress.compress.finetune.features import Hints, tapped
from edgecompress.compress.finetune.judge import Judge
from edgecompress.compress.prune import prune
from edgecompress.errors import BadConfig, BadData, BadInput, EdgeCompressError
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


def one_class(part: Dataset) -> Dataset:
    assert part.y is not None
    return Dataset(part.x, np.full_like(part.y, 2))


def test_one_class_or_one_sample_is_refused(teacher: Trainable, splits: Splits) -> None:
    with pytest.raises(BadData, match="All 600 training labels are class 2"):
        data = replace(splits, train=one_class(splits.train))
        distill(teacher, teacher, data, steps=2, seed=0)
    single = Dataset(splits.train.x[:1], None)
    with pytest.raises(BadData, match="1 training sample; fine-tuning needs 2"):
        distill(teacher, teacher, replace(splits, train=single), steps=2, seed=0)


def unlabelled(splits: Splits) -> Splits:
    return replace(splits, train=Dataset(splits.train.x, None))


def test_a_task_is_read_off_the_model_and_its_labels(teacher: Trainable, splits: Splits) -> None:
    encoder = seeded(Autoencoder)
    assert splits.test.y is not None
    nothing = Dataset(splits.train.x, None)
    bare = replace(splits, train=nothing, validation=nothing, test=nothing)
    anomalous = replace(bare, test=Dataset(splits.test.x, splits.test.y % 2))
    numbers = replace(bare, train=Dataset(splits.train.x, splits.train.x[:, 0, 0, :4]))
    assert Task.of(teacher, splits) == Task("classification")
    assert Task.of(teacher, unlabelled(splits)) == Task("classification")
    assert Task.of(seeded(Mobile), bare) == Task("classification", probabilities=True)
    assert Task.of(teacher, numbers) == Task("regression")
    assert Task.of(encoder, bare) == Task("autoencoder")
    assert Task.of(encoder, anomalous) == Task("autoencoder")
    assert Task.of(teacher, splits, "regression") == Task("regression")


def test_labels_of_the_validation_split_alone_select_the_state(
    teacher: Trainable, splits: Splits
) -> None:
    student = prune(teacher, {"stem": 5, "conv1": 4, "conv3": 8})
    recipe = Recipe(learning_rate=5e-3)
    tuned = distill(student, teacher, unlabelled(splits), steps=60, seed=1, recipe=recipe)
    assert accuracy(tuned, splits.test) > 90


def test_accuracies_the_samples_cannot_tell_apart_go_by_the_loss(
    teacher: Trainable, splits: Splits
) -> None:
    task, held_out = Task("classification"), Answers(teacher, splits).held_out
    judge = Judge(task, task.loss(Recipe()), held_out)
    error = 100 * (0.9 * 0.1 / len(splits.validation.x)) ** 0.5
    highest, within, beyond = (90.0, -0.2), (90 - 0.9 * error, -0.1), (90 - 1.1 * error, -0.1)
    assert judge.better(within, highest, 90.0)
    assert not judge.better(beyond, highest, 90.0)
    assert judge.better(highest, beyond, 90.0)
    own = Judge(task, task.loss(Recipe()), held_out, lambda made, y: 0.0)
    assert not own.better(within, highest, 90.0)


def test_losses_by_their_formulas() -> None:
    random = np.random.default_rng(0)
    output, target = (random.normal(size=(5, 4)) for _ in range(2))
    labels = np.array([0, 3, 1, 1, 2])

    def softmax(logits: np.ndarray) -> np.ndarray:
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    p, q = softmax(target / 3), softmax(output / 3)
    divergence = np.mean(np.sum(p * np.log(p / q), axis=1))
    hard = -np.mean(np.log(softmax(output)[np.arange(5), labels]))
    loss = Task("classification").loss(Recipe(temperature=3, label_share=0.25))
    tensors = [torch.from_numpy(one) for one in (output, target)]
    found = loss(*tensors, torch.from_numpy(labels)).item()
    assert found == pytest.approx(0.75 * 9 * divergence + 0.25 * hard)
    assert loss(*tensors, None).item() == pytest.approx(9 * divergence)
    through_softmax = Task("classification", probabilities=True).loss(
        Recipe(temperature=3, label_share=0.25)
    )
    tensors = [torch.from_numpy(softmax(one)) for one in (output, target)]
    assert through_softmax(*tensors, torch.from_numpy(labels)).item() == pytest.approx(found)


def test_numbers_are_learnt_from_teacher_and_truth(splits: Splits) -> None:
    output, target, truth = (torch.randn(6, 3) for _ in range(3))
    loss = Task("regression").loss(Recipe(label_share=0.25))
    expected = 0.75 * (output - target).square().mean() / target.var()
    expected = expected + 0.25 * (output - truth).square().mean() / truth.var()
    torch.testing.assert_close(loss(output, target, truth), expected)


class Regression(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, stride=2)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.flatten(self.pool(self.relu(self.conv(x)))))


def test_a_regression_learns_the_true_numbers(splits: Splits) -> None:
    def measured(part: Dataset) -> Dataset:
        flat = part.x.reshape(len(part.x), -1)
        return Dataset(part.x, np.stack([flat.mean(1), flat.std(1)], axis=1))

    data = replace(
        splits,
        train=measured(splits.train),
        validation=measured(splits.validation),
        test=measured(splits.test),
    )
    student = seeded(Regression)
    recipe = Recipe(learning_rate=2e-2, label_share=1.0)
    tuned = distill(student, student, data, steps=80, seed=0, recipe=recipe)
    x, y = torch.from_numpy(data.test.x), torch.from_numpy(data.test.y)
    with torch.no_grad():
        before, after = ((one.graph(x) - y).square().mean() for one in (student, tuned))
    assert after < 0.2 * before


def test_features_of_any_width_follow_the_teachers(teacher: Trainable, splits: Splits) -> None:
    """With the loss itself off, only the maps can pull the student towards the teacher."""
    student = prune(teacher, {"stem": 5, "conv1": 4, "conv3": 8})
    hints = Hints(student, teacher, torch.device("cpu"))
    assert len(hints.names) == 2
    recipe = Recipe(learning_rate=2e-2, feature_share=1.0)
    tuned = distill(
        student, teacher, splits, steps=100, seed=1, recipe=recipe, loss=Silence(), keep_from=100
    )
    x = torch.from_numpy(splits.test.x)
    errors = []
    for one in (student, tuned):
        with torch.no_grad():
            _, (_, mine) = tapped(one.graph, hints.names)(x)
            _, (_, theirs) = tapped(teacher.graph, hints.names)(x)
        # What a linear map of the student's last maps cannot tell of the teacher's.
        flat = [maps.transpose(0, 1).flatten(1).T.numpy() for maps in (mine, theirs)]
        design = np.column_stack([flat[0], np.ones(len(flat[0]))])
        residual = flat[1] - design @ np.linalg.lstsq(design, flat[1], rcond=None)[0]
        errors.append(residual.var() / flat[1].var())
    assert errors[1] < 0.8 * errors[0]


class Silence:
    """No loss, but still a function of the output."""

    def __call__(
        self, output: torch.Tensor, target: torch.Tensor, truth: torch.Tensor | None
    ) -> torch.Tensor:
        return 0 * output.sum()


def test_features_need_maps_of_one_size(teacher: Trainable, splits: Splits) -> None:
    with pytest.raises(BadInput, match="a map of the same size in both"):
        encoder = seeded(Autoencoder)
        distill(encoder, teacher, splits, steps=1, seed=0, recipe=Recipe(feature_share=1.0))


def test_training_stops_when_nothing_gets_better(teacher: Trainable, splits: Splits) -> None:
    progress = Count()
    recipe = Recipe(learning_rate=3.0, checks=10, patience=2)
    distill(teacher, teacher, splits, steps=40, seed=0, recipe=recipe, progress=progress)
    assert progress.steps == 8


def test_a_hook_follows_every_step_and_early_states_are_left(
    teacher: Trainable, splits: Splits
) -> None:
    seen: list[int] = []

    def hook(graph: torch.fx.GraphModule, step: int) -> None:
        seen.append(step)
        with torch.no_grad():
            graph.get_submodule("head").bias.fill_(step)

    recipe = Recipe(learning_rate=3.0, checks=6)
    tuned = distill(
        teacher, teacher, splits, steps=6, seed=0, recipe=recipe, after_step=hook, keep_from=5
    )
    assert seen == [1, 2, 3, 4, 5, 6]
    assert float(tuned.graph.get_submodule("head").bias[0]) in (5.0, 6.0)
    with pytest.raises(BadInput, match="hook"):
        aware = Recipe(quantization_aware=True)
        distill(teacher, teacher, splits, steps=1, seed=0, recipe=aware, after_step=hook)


def test_images_are_moved_and_mirrored_where_it_is_said(teacher: Trainable, splits: Splits) -> None:
    x = torch.arange(2 * 5 * 6, dtype=torch.float32).reshape(1, 2, 5, 6) + 1
    x = x.repeat(300, 1, 1, 1)
    torch.manual_seed(0)
    seen = {one.numpy().tobytes() for one in augmented(x, Recipe(shift_pixels=1, mirror=True))}
    padded = nn.functional.pad(x[0], (1, 1, 1, 1))
    possible = {
        turned.contiguous().numpy().tobytes()
        for down in range(3)
        for right in range(3)
        for moved in [padded[:, down : down + 5, right : right + 6]]
        for turned in (moved, moved.flip(2))
    }
    assert seen == possible
    recipe = Recipe(shift_pixels=1, learning_rate=1e-9)
    distill(teacher, teacher, splits, steps=2, seed=0, recipe=recipe)
    with pytest.raises(BadConfig, match="16 x 16 pixels"):
        distill(teacher, teacher, splits, steps=1, seed=0, recipe=Recipe(shift_pixels=16))
    with pytest.raises(BadConfig, match="Only images"):
        augments(Recipe(mirror=True), torch.zeros(3, 7))


def test_the_callers_metric_selects_the_state(teacher: Trainable, splits: Splits) -> None:
    seen: list[float] = []

    def fewest_of_class_0(outputs: np.ndarray, labels: np.ndarray | None) -> float:
        assert labels is not None
        seen.append(-float(np.mean(outputs.argmax(1) == 0)))
        return seen[-1]

    recipe = Recipe(learning_rate=1.0)
    tuned = distill(
        teacher, teacher, splits, steps=10, seed=0, recipe=recipe, metric=fewest_of_class_0
    )
    assert len(seen) == 6
    with torch.no_grad():
        guess = tuned.graph(torch.from_numpy(splits.validation.x)).argmax(1)
    assert float((guess == 0).float().mean()) == pytest.approx(-max(seen))
    assert max(seen) > seen[0]


def test_the_learning_rate_goes_by_what_there_is_to_win_back(
    teacher: Trainable, splits: Splits
) -> None:
    assert Recipe().rate_for(0.0) == 2e-4
    assert Recipe().rate_for(0.25) == pytest.approx(1.5e-3)
    assert Recipe(learning_rate=0.5).rate_for(0.25) == 0.5
    student = prune(teacher, {"conv1": 4, "conv3": 6})
    task, held_out = Task("classification"), Answers(teacher, splits).held_out
    judge = Judge(task, task.loss(Recipe()), held_out)
    x = torch.from_numpy(splits.validation.x)
    with torch.no_grad():
        differ = (student.graph(x).argmax(1) != teacher.graph(x).argmax(1)).float().mean()
    assert 0 < judge.disagreement(student.graph) == pytest.approx(float(differ))
    assert judge.disagreement(teacher.graph) == 0
    task = Task("regression")
    judge = Judge(task, task.loss(Recipe()), held_out)
    assert 0 < judge.disagreement(student.graph) <= 1


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"temperature": 0}, {"label_share": 1.5}, {"batch_size": 0}, {"patience": 0}):
        (name,) = wrong
        with pytest.raises(BadConfig, match=name):
            Recipe(**wrong)  # type: ignore[arg-type]


def test_curves_are_written_for_tensorboard(
    teacher: Trainable, splits: Splits, tmp_path: Path
) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    distill(teacher, teacher, splits, steps=20, seed=0, log_folder=tmp_path)
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert [one.step for one in events.Scalars("training/loss")] == [1, 11]
    assert [one.step for one in events.Scalars("validation/score")] == [4, 8, 12, 16, 20]
    assert events.Scalars("training/learning_rate")[0].value > 0


def test_a_missing_tensorboard_is_named(
    teacher: Trainable, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(BadConfig, match=r"tensorboard, which is not installed.*pip install"):
        distill(teacher, teacher, splits, steps=1, seed=0, log_folder=tmp_path)
