"""How good a model is, by the one measure the whole search selects with.

labels, classes        top-1 accuracy in percent
numbers, autoencoders  share of the truth's variance that is explained, in percent
a user's metric        whatever number it returns; larger is better
otherwise              minus the divergence from the source model's own outputs
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from edgecompress.compress.finetune import Metric, Task, user_metric
from edgecompress.model.data import Dataset, Splits
from edgecompress.model.trainable import Trainable
from edgecompress.plan.sensitivity import as_classes, damage, outputs
from edgecompress.records import Record

JUDGED_SAMPLES = 1000
TOP1 = "top-1 %"
EXPLAINED = "explained variance %"
DIVERGENCE = "divergence from the source's outputs"


_ERRORS_FOR_SIZE = 2
"""Standard errors. Example: two candidates 0.9 to 2.0 points apart after 80 steps were 0.1 to 0.2
apart after 3,200 and more (Fashion-MNIST, three seeds, docs/notes/decisions.md)."""


class Score(Record):
    """`value` by the metric, larger is better (None where there is none to take); `divergence`
    from the source's outputs decides between equals, and alone where there are no labels."""

    metric: str
    value: float | None
    divergence: float

    @property
    def order(self) -> tuple[float, float]:
        """For comparing: larger is better."""
        return (0.0 if self.value is None else self.value, -self.divergence)

    @property
    def comparable(self) -> float:
        """One number, larger is better."""
        return -self.divergence if self.value is None else self.value

    def __str__(self) -> str:
        if self.value is None:
            return f"divergence {self.divergence:.4g}"
        return f"{self.value:.2f} {self.metric.removeprefix('top-1 ')}"


def best_of(scores: Sequence[Score], samples: int, sizes: Sequence[float] | None = None) -> int:
    """Index of the best score: of accuracies that are as good as equal, the least divergence.

    As good as equal are those within one standard error of the highest, 100 sqrt(p (1 - p) / n)
    points (the rule of Breiman et al., "Classification and Regression Trees", 1984, section 3.4.3):
    0.8 points at 93 % of 1000 samples. Divergence counts every output of every sample, so it still
    tells such candidates apart. Of a user's metric no error is known; the highest value wins.

    Args:
        scores: of one metric, at least one.
        samples: each was taken on.
        sizes: of the candidates, where the smallest of those as good as equal is wanted: then those
            within two standard errors, because training on narrows what a brief recovery shows.
    """
    first = max(range(len(scores)), key=lambda at: scores[at].order)
    highest = scores[first].value
    if scores[first].metric != TOP1 or highest is None:
        return first
    share = min(1.0, max(0.0, highest / 100))
    tolerated = 1 if sizes is None else _ERRORS_FOR_SIZE
    least = highest - tolerated * 100 * (share * (1 - share) / samples) ** 0.5
    equal = [at for at, score in enumerate(scores) if (score.value or 0.0) >= least]
    wanted = [0.0] * len(scores) if sizes is None else sizes
    return min(equal, key=lambda at: (wanted[at], scores[at].divergence, -(scores[at].value or 0)))


@dataclass(frozen=True)
class Scorer:
    """Scores models on the first thousand validation samples (of training where there are none)."""

    held_out: Dataset
    teacher: torch.Tensor
    task: Task
    metric: str
    function: Metric | None

    @property
    def user_metric(self) -> str | None:
        return None if self.function is None else self.metric

    @property
    def objective(self) -> str:
        """For people: what candidates were selected by."""
        count = len(self.held_out)
        if self.metric == DIVERGENCE:
            return (
                f"agreement with the source's outputs on {count:,} validation samples: there are "
                "no labels to measure accuracy with"
            )
        return f"{self.metric} on {count:,} validation samples"

    @staticmethod
    def of_source(trainable: Trainable, splits: Splits, metric: str | None = None) -> Scorer:
        """Raises BadData for labels the model has no output for, BadInput for a bad metric."""
        chosen = splits.validation if len(splits.validation.x) else splits.train
        held_out = chosen.first(JUDGED_SAMPLES)
        task = Task.of(trainable, splits)
        teacher = outputs(trainable, torch.from_numpy(held_out.x))
        function = None if metric is None else user_metric(metric)
        measured = EXPLAINED if task.kind != "classification" else TOP1
        known = held_out.y is not None or task.kind == "autoencoder"
        name = metric or (measured if known else DIVERGENCE)
        return Scorer(held_out, teacher, task, name, function)

    def of(self, model: Trainable) -> Score:
        return self.of_outputs(outputs(model, torch.from_numpy(self.held_out.x), raw=True))

    def of_outputs(self, made: torch.Tensor) -> Score:
        """made: [N, ...] as a model gives them for `held_out`."""
        classes = as_classes(made, probabilities=self.task.probabilities)
        divergence = damage(self.teacher, classes)
        return Score(metric=self.metric, value=self._value(made), divergence=divergence)

    def _value(self, made: torch.Tensor) -> float | None:
        if self.function is not None:
            return self.function(made.numpy(), self.held_out.y)
        if self.metric == EXPLAINED:
            return self._explained(made)
        if self.metric != TOP1:
            return None
        assert self.held_out.y is not None
        labels = torch.from_numpy(self.held_out.y)
        return 100.0 * float((made.argmax(1) == labels).float().mean())

    def _explained(self, made: torch.Tensor) -> float:
        """100 (1 - squared error / variance): 100 is exact, 0 as good as the mean."""
        x, y = self.held_out.x, self.held_out.y
        labels = None if y is None else torch.from_numpy(y)
        truth = self.task.truth(torch.from_numpy(x), labels, made.shape)
        assert truth is not None
        error = float((made - truth).square().mean())
        return 100.0 * (1.0 - error / max(1e-30, float(truth.var(correction=0))))

    @property
    def selector(self) -> Metric | None:
        """What training selects its states by, where that is not accuracy."""
        return self.function
