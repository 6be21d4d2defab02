"""What a model is for, and so what it learns by."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import nn

from edgecompress.compress.finetune.recipe import Recipe
from edgecompress.compress.layers import input_nodes, kind_of
from edgecompress.errors import BadData
from edgecompress.model.answers import check_answers, is_autoencoder
from edgecompress.model.data import Dataset, Splits
from edgecompress.model.trainable import Trainable

Kind = Literal["classification", "regression", "autoencoder"]

_LEAST_SAMPLES = 2


class Loss(Protocol):
    """What training minimises."""

    def __call__(
        self, output: torch.Tensor, target: torch.Tensor, truth: torch.Tensor | None
    ) -> torch.Tensor:
        """Scalar.

        Args:
            output: [N, ...] of the student.
            target: [N, ...] of the teacher.
            truth: the right answers as `Task.truth` gives them, or None.
        """
        ...


@dataclass(frozen=True)
class Task:
    """What kind of answer the model gives.

    Attributes:
        kind: class scores, numbers, or the input itself.
        probabilities: the graph ends in a softmax, whose logarithm serves as logits.
    """

    kind: Kind
    probabilities: bool = False

    @staticmethod
    def of(student: Trainable, splits: Splits, kind: Kind | None = None) -> Task:
        """Reads the task off the model and the labels, unless `kind` says it.

        Class scores are [N, classes] outputs with a softmax, or with integer labels in any of the
        splits; an output of the input's size without labels is an autoencoder's; anything else
        is numbers.

        Raises:
            BadData: too little training data, NaN or infinity in it, labels of one class only or
                that the model has no output for, numbers that are not as many as its outputs.
        """
        train = splits.train
        _check_inputs(train)
        last = next(node for node in student.graph.graph.nodes if node.op == "output")
        probabilities = kind_of(input_nodes(last)[0]) == "softmax"
        with torch.no_grad():
            output = copy.deepcopy(student.graph).cpu().eval()(student.example)
        classes = output.shape[1] if output.dim() == 2 else 0
        if kind is None:
            labelled = next((one.y for one in _parts(splits) if one.y is not None), None)
            kind = _guessed(output, student.example, labelled, probabilities)
        if kind == "classification" and train.y is not None:
            _check_labels(train.y, classes)
        if kind == "regression":
            check_answers(splits, tuple(output.shape))
        return Task(kind, probabilities and kind == "classification")

    def truth(
        self, x: torch.Tensor, y: torch.Tensor | None, shape: torch.Size
    ) -> torch.Tensor | None:
        """The right answers for a batch: int64 [N] classes, or float32 in the output's shape.

        Args:
            x: inputs of the batch.
            y: its labels, or None.
            shape: of the model's output for this batch.
        """
        if self.kind == "classification":
            return y
        if self.kind == "autoencoder":
            return x.reshape(shape)
        return None if y is None else y.float().reshape(shape)

    def loss(self, recipe: Recipe) -> Loss:
        """Distillation's.

        Classifiers: (1 - a) T^2 KL(teacher / T || student / T) + a cross entropy (Hinton et al.,
        "Distilling the Knowledge in a Neural Network", 2015, section 2). Numbers: (1 - a) times
        the squared error against the teacher + a times that against the truth, each relative to
        its target's variance. a is the recipe's label share, 0 where there is no truth.
        """
        if self.kind == "classification":
            return _Distillation(recipe.temperature, recipe.label_share, self.probabilities)
        return _Reconstruction(recipe.label_share)


@dataclass(frozen=True)
class _Distillation:
    temperature: float
    label_share: float
    probabilities: bool

    def _logits(self, output: torch.Tensor) -> torch.Tensor:
        """Softmax(log p / T) is softmax(logits / T): the constant in between cancels."""
        return output.clamp_min(1e-8).log() if self.probabilities else output

    def __call__(
        self, output: torch.Tensor, target: torch.Tensor, truth: torch.Tensor | None
    ) -> torch.Tensor:
        logits = self._logits(output)
        share = 0.0 if truth is None else self.label_share
        total = torch.zeros((), device=output.device)
        if share < 1:
            soft = torch.log_softmax(self._logits(target) / self.temperature, dim=1)
            ours = torch.log_softmax(logits / self.temperature, dim=1)
            divergence = nn.functional.kl_div(ours, soft, reduction="batchmean", log_target=True)
            total = total + (1 - share) * self.temperature**2 * divergence
        if truth is not None and share > 0:
            total = total + share * nn.functional.cross_entropy(logits, truth)
        return total


@dataclass(frozen=True)
class _Reconstruction:
    label_share: float

    def __call__(
        self, output: torch.Tensor, target: torch.Tensor, truth: torch.Tensor | None
    ) -> torch.Tensor:
        followed = _relative_error(output, target)
        if truth is None or self.label_share == 0:
            return followed
        return (1 - self.label_share) * followed + self.label_share * _relative_error(output, truth)


def _relative_error(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return nn.functional.mse_loss(output, target) / target.var().clamp_min(1e-8)


def _parts(splits: Splits) -> tuple[Dataset, Dataset, Dataset]:
    return splits.train, splits.validation, splits.test


def _guessed(
    output: torch.Tensor, example: torch.Tensor, y: np.ndarray | None, probabilities: bool
) -> Kind:
    integer = y is not None and y.dtype.kind != "f"
    numbers = y is not None and not integer
    if not probabilities and is_autoencoder(tuple(output.shape), tuple(example.shape), y):
        return "autoencoder"
    if numbers:
        return "regression"
    if output.dim() == 2 and output.shape[1] >= 2 and (integer or probabilities):
        return "classification"
    return "regression"


def _check_inputs(train: Dataset) -> None:
    if len(train.x) == 0:
        raise BadData("There is no training data to fine-tune on.")
    if len(train.x) < _LEAST_SAMPLES:
        raise BadData(
            f"There is {len(train.x)} training sample; fine-tuning needs {_LEAST_SAMPLES} or more.",
            next_step="Give more data; some hundred samples are a start.",
        )
    if not np.isfinite(train.x).all():
        bad = int((~np.isfinite(train.x)).sum())
        raise BadData(f"Training data has {bad} values that are NaN or infinite.")


def _check_labels(y: np.ndarray, classes: int) -> None:
    if not 0 <= y.min() <= y.max() < classes:
        raise BadData(
            f"Labels run from {y.min()} to {y.max()}, the model has {classes} "
            f"outputs (classes 0 to {classes - 1})."
        )
    if y.min() == y.max():
        raise BadData(
            f"All {len(y)} training labels are class {y[0]}; nothing can be learnt from them.",
            next_step="Give data of at least two classes, or leave the labels out.",
        )
