"""Scores a state on the validation split."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from edgecompress.compress.finetune.batches import Answered
from edgecompress.compress.finetune.task import Loss, Task

_BATCH = 250

Score = tuple[float, float]
"""(the metric, else accuracy in percent, else 0; minus the loss); larger is better, the first
number first."""

Metric = Callable[[np.ndarray, np.ndarray | None], float]
"""(outputs [N, ...] float32, labels as the data has them or None) -> larger is better."""


class Judge:
    """Looks at no more than 2000 validation samples (of training where there are none)."""

    def __init__(
        self, task: Task, loss: Loss, data: Answered, metric: Metric | None = None
    ) -> None:
        """data: `Answers.held_out`."""
        self._task, self._loss, self._data, self._metric = task, loss, data, metric

    @property
    def has_labels(self) -> bool:
        """The first number of a score means something."""
        labelled = self._task.kind == "classification" and self._data.has_labels
        return labelled or self._metric is not None

    def better(self, one: Score, other: Score, highest: float) -> bool:
        """Whether a state of score `one` is kept instead of one of score `other`.

        Accuracies within one standard error of the highest, 100 sqrt(p (1 - p) / n) points, are as
        good as equal (the rule of Breiman et al., "Classification and Regression Trees", 1984,
        section 3.4.3), and the loss decides, which every output of every sample moves. A metric's
        error is not known: its values are compared as they are.

        Args:
            highest: accuracy in percent seen so far, of `one` and `other` too.
        """
        if self._metric is not None or not self.has_labels or not np.isfinite(other[0]):
            return one > other
        share = highest / 100
        least = highest - 100 * (share * (1 - share) / len(self._data)) ** 0.5
        if (one[0] >= least) != (other[0] >= least):
            return one[0] >= least
        return one[1] > other[1] if one[0] >= least else one > other

    def disagreement(self, graph: torch.fx.GraphModule) -> float:
        """0 to 1: the share of inputs whose class is not the teacher's, or the squared error
        relative to the variance of the teacher's outputs."""
        rows = torch.arange(min(len(self._data), _BATCH))
        with torch.no_grad():
            output, target = graph(self._data.inputs(rows)), self._data.targets(rows)
        if self._task.kind == "classification":
            return float((output.argmax(1) != target.argmax(1)).float().mean())
        error = nn.functional.mse_loss(output, target) / target.var().clamp_min(1e-8)
        return min(1.0, float(error))

    def score(self, graph: torch.fx.GraphModule) -> Score:
        total, right, outputs = 0.0, 0, []
        with torch.no_grad():
            for rows in torch.arange(len(self._data)).split(_BATCH):
                x, labels = self._data.inputs(rows), self._data.labels(rows)
                output = graph(x)
                outputs.append(output.cpu())
                truth = self._task.truth(x, labels, output.shape)
                loss = self._loss(output, self._data.targets(rows), truth)
                total += float(loss) * len(rows)
                if self._task.kind == "classification" and labels is not None:
                    right += int((output.argmax(1) == labels).sum())
        if self._metric is not None:
            value = float(self._metric(torch.cat(outputs).numpy(), self._data.y))
        else:
            value = 100.0 * right / len(self._data)
        return value, -total / len(self._data)
