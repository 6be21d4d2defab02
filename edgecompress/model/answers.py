"""How right outputs are, by what the data says: classes, numbers, or the input itself.

integer y, a row of scores     top-1 %                      more is better
no y, a row of scores          agreement with the source, %  more is better
float y, or integers for one   mean squared error           less is better
no y, outputs like the input   mean squared error against the input
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecompress.errors import BadData
from edgecompress.model.data import Dataset, Splits

TOP1, AGREEMENT = "top-1 %", "agreement with the source, %"
SQUARED_ERROR = "mean squared error"


@dataclass(frozen=True)
class Measure:
    """One measure of outputs [N, ...] float32; `truth` holds the right answers, [N] or [N, ...]."""

    metric: str
    truth: np.ndarray

    def of(self, outputs: np.ndarray) -> float:
        """Percent of right classes, or the squared error, over the first len(outputs) samples."""
        truth = self.truth[: len(outputs)]
        if self.metric == SQUARED_ERROR:
            return float(np.mean((outputs.reshape(truth.shape) - truth) ** 2, dtype=np.float64))
        return 100.0 * float(np.mean(outputs.argmax(1) == truth))


def measure_of(expected: np.ndarray, data: Dataset) -> Measure | None:
    """The measure of a model on `data`, None where there is nothing to compare with.

    Args:
        expected: [N, ...] the source model's own outputs on the first N samples.

    Raises:
        BadData: y has not as many numbers a sample as the model gives.
    """
    samples, x, y = len(expected), data.x[: len(expected)], data.y
    scores = expected.ndim == 2 and expected.shape[1] > 1
    if y is not None and (y.dtype.kind == "f" or np.prod(expected.shape[1:]) == 1):
        check_numbers(y, expected.shape[1:], "y")
        return Measure(SQUARED_ERROR, y[:samples].astype(np.float32).reshape(expected.shape))
    if is_autoencoder(expected.shape, x.shape, y):
        return Measure(SQUARED_ERROR, x.reshape(expected.shape))
    if not scores:
        return None
    if y is None:
        return Measure(AGREEMENT, expected.argmax(1))
    return Measure(TOP1, y[:samples])


def is_autoencoder(
    output_shape: tuple[int, ...], input_shape: tuple[int, ...], y: np.ndarray | None
) -> bool:
    """Whether a model gives its input again: outputs of that size, and no classes to choose from.

    "Normal" or "abnormal" is said of an autoencoder's inputs, it is none of its outputs: labels of
    no more than two classes for more than two outputs are no class scores.
    """
    if np.prod(output_shape[1:]) != np.prod(input_shape[1:]):
        return False
    return y is None or (y.dtype.kind != "f" and output_shape[-1] > 2 and len(np.unique(y)) <= 2)


def check_answers(splits: Splits, output_shape: tuple[int, ...]) -> None:
    """Before anything is spent on them: numbers are as many a sample as the model gives.

    Args:
        output_shape: the model's, with its batch of 1.

    Raises:
        BadData: they are not; labels of classes written as floats end here.
    """
    for name in ("train", "validation", "test"):
        y = getattr(splits, name).y
        if y is not None and y.dtype.kind == "f":
            check_numbers(y, output_shape[1:], f"{name}_y in {splits.name}")


def check_numbers(y: np.ndarray, given: tuple[int, ...], where: str) -> None:
    """Raises BadData unless y [N, ...] has np.prod(given) values a sample."""
    wanted, found = int(np.prod(given)), int(np.prod(y.shape[1:]))
    if wanted != found:
        raise BadData(
            f"{where} is {y.dtype} with {found} {'number' if found == 1 else 'numbers'} a sample, "
            f"but the model gives {wanted}.",
            next_step="Classes are integers: y.astype('int64'). Numbers to predict are as many a "
            "sample as the model has outputs.",
        )
