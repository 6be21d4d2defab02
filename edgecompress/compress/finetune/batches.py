"""Training data on its way into the loop, and the teacher's answers to it."""

from __future__ import annotations

import copy

import numpy as np
import torch

from edgecompress.compress.batchnorm import fold
from edgecompress.compress.finetune.memory_order import channels_last
from edgecompress.errors import UnsupportedOperators
from edgecompress.model.data import Dataset, Splits
from edgecompress.model.trainable import Trainable

MOST_JUDGED = 2000
"""Validation samples a state is scored on."""


class Answered:
    """A data set whose teacher outputs are computed the first time a row is asked for."""

    def __init__(self, teacher: torch.fx.GraphModule, data: Dataset, device: torch.device) -> None:
        self._teacher = copy.deepcopy(teacher).eval().to(device)
        self._x = torch.from_numpy(np.ascontiguousarray(data.x, np.float32)).to(device)
        self._y = None if data.y is None else torch.from_numpy(np.asarray(data.y)).to(device)
        self._known = torch.zeros(len(data.x), dtype=torch.bool)
        self._outputs: torch.Tensor | None = None
        self._all_known = False

    def __len__(self) -> int:
        return len(self._x)

    @property
    def y(self) -> np.ndarray | None:
        return None if self._y is None else self._y.cpu().numpy()

    @property
    def has_labels(self) -> bool:
        return self._y is not None

    def inputs(self, rows: torch.Tensor) -> torch.Tensor:
        """[N, ...] float32."""
        return self._x[rows]

    def labels(self, rows: torch.Tensor) -> torch.Tensor | None:
        return None if self._y is None else self._y[rows]

    def targets(self, rows: torch.Tensor) -> torch.Tensor:
        """[N, ...] float32: what the teacher says of these rows."""
        missing = rows[:0] if self._all_known else rows[~self._known[rows]]
        if len(missing):
            made = self.taught(self._x[missing])
            if self._outputs is None:
                self._outputs = torch.zeros(len(self._x), *made.shape[1:], device=made.device)
            self._outputs[missing] = made
            self._known[missing] = True
            self._all_known = bool(self._known.all())
        assert self._outputs is not None
        return self._outputs[rows]

    def taught(self, x: torch.Tensor) -> torch.Tensor:
        """[N, ...] float32: what the teacher says of inputs that are no rows of the data."""
        with torch.no_grad():
            return self._teacher(x)


class Answers:
    """One teacher's answers to the data of one task, for all the students that are trained on it.

    Students of one seed are shown the same rows in the same order, so each row is asked once.
    """

    def __init__(self, teacher: Trainable, splits: Splits) -> None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        held_out = splits.validation if len(splits.validation.x) else splits.train
        self.device = device
        graph = _quick(teacher)
        self.train = Answered(graph, splits.train, device)
        self.held_out = Answered(graph, held_out.first(MOST_JUDGED), device)


def _quick(teacher: Trainable) -> torch.fx.GraphModule:
    """The same function in about half the time: it is asked about every training sample."""
    try:
        graph = fold(teacher).graph
    except UnsupportedOperators:
        graph = copy.deepcopy(teacher.graph)
    channels_last(graph)
    return graph


class Batches:
    """Full batches of shuffled rows, epoch after epoch; all rows where they are fewer."""

    def __init__(self, rows: int, size: int, seed: int) -> None:
        self._rows, self._size = rows, min(size, rows)
        self._generator = torch.Generator().manual_seed(seed)
        self._left = torch.empty(0, dtype=torch.int64)

    def next(self) -> torch.Tensor:
        """int64 [batch]."""
        if len(self._left) < self._size:
            self._left = torch.randperm(self._rows, generator=self._generator)
        batch, self._left = self._left[: self._size], self._left[self._size :]
        return batch
