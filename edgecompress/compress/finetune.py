"""Recovery training: the compressed student learns the outputs of the model it came from."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from edgecompress.compress.layers import input_nodes, kind_of
from edgecompress.errors import BadData, EdgeCompressError
from edgecompress.model.data import Dataset, Splits
from edgecompress.model.trainable import Trainable
from edgecompress.progress import SILENT, Progress

_TEMPERATURE = 4.0
_LABEL_SHARE = 0.3
_CHECKS = 5
_VALIDATION_LIMIT = 2000
_WARMUP_SHARE = 0.05
_LARGEST_GRADIENT = 5.0


def distill(
    student: Trainable,
    teacher: Trainable,
    splits: Splits,
    *,
    steps: int,
    seed: int,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    progress: Progress = SILENT,
) -> Trainable:
    """Trains a copy of `student` for `steps` batches and returns its best state on validation.

    Classifiers (labels given, or a softmax at the end) learn by
    0.7 T^2 KL(teacher / T || student / T) + 0.3 cross entropy, T = 4 (Hinton et al., "Distilling
    the Knowledge in a Neural Network", 2015); without labels by the KL alone. Other models learn
    the teacher's outputs by mean squared error relative to their variance.

    Adam, short linear warm-up, cosine to zero. The state before training and five states on the
    way are compared on at most 2000 validation inputs: highest accuracy where there are labels
    (least loss among equals), else least loss. The result is in eval mode. The same seed, data,
    thread count and machine give the same weights.

    Args:
        steps: batches; 0 returns a copy.
        progress: advanced once a step.

    Raises:
        BadData: no training data, NaN or infinity in it, labels the model has no output for.
        EdgeCompressError: the loss stopped being finite.
    """
    task = _Task.of(student, splits)
    graph = copy.deepcopy(student.graph).eval()
    if steps == 0:
        return replace(student, graph=graph)
    targets = _Targets(teacher.graph, splits.train.x)
    judge = _Judge(task, splits, teacher.graph)
    best_state, best_score = copy.deepcopy(graph.state_dict()), judge.score(graph)
    optimizer = torch.optim.Adam(graph.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    check_every = max(1, -(-steps // _CHECKS))
    batches = _Batches(len(splits.train.x), min(batch_size, len(splits.train.x)), seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step in range(1, steps + 1):
            rows = batches.next()
            graph.train(len(rows) > 1)
            loss = task.loss(graph(targets.inputs(rows)), targets.of(rows), _labels(splits, rows))
            _take_step(graph, optimizer, loss, step)
            schedule.step()
            progress.advance()
            if step % check_every == 0 or step == steps:
                score = judge.score(graph.eval())
                if score > best_score:
                    best_state, best_score = copy.deepcopy(graph.state_dict()), score
    graph.load_state_dict(best_state)
    return replace(student, graph=graph.eval())


def _rate(step: int, steps: int) -> float:
    """Share of the learning rate: linear warm-up, then half a cosine down to zero."""
    warmup = max(1, round(steps * _WARMUP_SHARE))
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + np.cos(np.pi * (step - warmup) / max(1, steps - warmup)))


def _take_step(
    graph: torch.fx.GraphModule, optimizer: torch.optim.Optimizer, loss: torch.Tensor, step: int
) -> None:
    if not torch.isfinite(loss):
        raise EdgeCompressError(
            f"Fine-tuning diverged: the loss is {loss.item()} at step {step}.",
            next_step="Give a smaller learning rate, or check the scale of the training data.",
        )
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(graph.parameters(), _LARGEST_GRADIENT)
    optimizer.step()


@dataclass(frozen=True)
class _Task:
    """What kind of answer the model gives.

    Attributes:
        classifies: outputs are class scores.
        probabilities: the graph ends in a softmax, whose logarithm serves as logits.
    """

    classifies: bool
    probabilities: bool

    @staticmethod
    def of(student: Trainable, splits: Splits) -> _Task:
        train = splits.train
        if len(train.x) == 0:
            raise BadData("There is no training data to fine-tune on.")
        if not np.isfinite(train.x).all():
            bad = int((~np.isfinite(train.x)).sum())
            raise BadData(f"Training data has {bad} values that are NaN or infinite.")
        last = next(node for node in student.graph.graph.nodes if node.op == "output")
        probabilities = kind_of(input_nodes(last)[0]) == "softmax"
        with torch.no_grad():
            shape = copy.deepcopy(student.graph).eval()(student.example).shape
        classes = shape[1] if len(shape) == 2 else 0
        classifies = classes >= 2 and (train.y is not None or probabilities)
        if classifies and train.y is not None and not 0 <= train.y.min() <= train.y.max() < classes:
            raise BadData(
                f"Labels run from {train.y.min()} to {train.y.max()}, the model has {classes} "
                f"outputs (classes 0 to {classes - 1})."
            )
        return _Task(classifies, probabilities)

    def logits(self, output: torch.Tensor) -> torch.Tensor:
        """Softmax(log p / T) is softmax(logits / T): the constant in between cancels."""
        return output.clamp_min(1e-8).log() if self.probabilities else output

    def loss(
        self, output: torch.Tensor, target: torch.Tensor, labels: torch.Tensor | None
    ) -> torch.Tensor:
        """Scalar. output, target [N, ...] of student and teacher; labels int64 [N] or None."""
        if not self.classifies:
            return nn.functional.mse_loss(output, target) / target.var().clamp_min(1e-8)
        logits = self.logits(output)
        soft = torch.log_softmax(self.logits(target) / _TEMPERATURE, dim=1)
        ours = torch.log_softmax(logits / _TEMPERATURE, dim=1)
        divergence = nn.functional.kl_div(ours, soft, reduction="batchmean", log_target=True)
        divergence = divergence * _TEMPERATURE**2
        if labels is None:
            return divergence
        hard = nn.functional.cross_entropy(logits, labels)
        return (1 - _LABEL_SHARE) * divergence + _LABEL_SHARE * hard


class _Targets:
    """Teacher outputs, computed the first time a row is asked for."""

    def __init__(self, teacher: torch.fx.GraphModule, x: np.ndarray) -> None:
        self._teacher = copy.deepcopy(teacher).eval()
        self._x = torch.from_numpy(np.ascontiguousarray(x, np.float32))
        self._known = torch.zeros(len(x), dtype=torch.bool)
        self._outputs: torch.Tensor | None = None

    def inputs(self, rows: torch.Tensor) -> torch.Tensor:
        return self._x[rows]

    def of(self, rows: torch.Tensor) -> torch.Tensor:
        missing = rows[~self._known[rows]]
        if len(missing):
            with torch.no_grad():
                made = self._teacher(self._x[missing])
            if self._outputs is None:
                self._outputs = torch.zeros(len(self._x), *made.shape[1:])
            self._outputs[missing] = made
            self._known[missing] = True
        assert self._outputs is not None
        return self._outputs[rows]


class _Batches:
    """Full batches of shuffled rows, epoch after epoch."""

    def __init__(self, rows: int, size: int, seed: int) -> None:
        self._rows, self._size = rows, size
        self._generator = torch.Generator().manual_seed(seed)
        self._left = torch.empty(0, dtype=torch.int64)

    def next(self) -> torch.Tensor:
        if len(self._left) < self._size:
            self._left = torch.randperm(self._rows, generator=self._generator)
        batch, self._left = self._left[: self._size], self._left[self._size :]
        return batch


class _Judge:
    """Scores a state on the validation split; larger is better."""

    def __init__(self, task: _Task, splits: Splits, teacher: torch.fx.GraphModule) -> None:
        chosen = splits.validation if len(splits.validation.x) else splits.train
        data = Dataset(
            chosen.x[:_VALIDATION_LIMIT],
            None if chosen.y is None else chosen.y[:_VALIDATION_LIMIT],
        )
        self._task, self._labels = task, None
        if task.classifies and data.y is not None:
            self._labels = torch.from_numpy(np.asarray(data.y, np.int64))
        self._targets = _Targets(teacher, data.x)

    def score(self, graph: torch.fx.GraphModule) -> tuple[float, float]:
        """(accuracy in percent or 0, minus the loss)."""
        total, right, count = 0.0, 0, len(self._targets._known)
        with torch.no_grad():
            for rows in torch.arange(count).split(250):
                labels = None if self._labels is None else self._labels[rows]
                output = graph(self._targets.inputs(rows))
                loss = self._task.loss(output, self._targets.of(rows), labels)
                total += float(loss) * len(rows)
                if labels is not None:
                    right += int((output.argmax(1) == labels).sum())
        return 100.0 * right / count, -total / count


def _labels(splits: Splits, rows: torch.Tensor) -> torch.Tensor | None:
    if splits.train.y is None:
        return None
    return torch.from_numpy(np.asarray(splits.train.y[rows.numpy()], np.int64))
