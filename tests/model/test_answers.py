"""How right outputs are, by what the data says."""

from __future__ import annotations

import numpy as np
import pytest

from edgecompress.errors import BadData
from edgecompress.model.answers import check_answers, measure_of
from edgecompress.model.data import Dataset, Splits

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 4)).astype(np.float32)


def data(y: np.ndarray | None) -> Dataset:
    return Dataset(X, y)


def test_classes_count_what_is_right():
    scores = np.eye(3, dtype=np.float32)[np.arange(12) % 3]
    measure = measure_of(scores, data(np.where(np.arange(12) < 9, np.arange(12) % 3, 0)))
    assert measure.metric == "top-1 %"
    assert measure.of(scores) == pytest.approx(100 * 10 / 12)
    assert measure.of(scores[:9]) == 100.0


def test_without_labels_the_source_is_the_truth():
    scores = RNG.normal(size=(12, 3)).astype(np.float32)
    measure = measure_of(scores, data(None))
    assert measure.metric == "agreement with the source, %"
    assert (measure.of(scores), measure.of(-scores)) == (100.0, 0.0)


def test_numbers_are_measured_by_their_error():
    y = RNG.normal(size=(12, 2)).astype(np.float32)
    measure = measure_of(np.zeros((12, 2), np.float32), data(y))
    assert measure.metric == "mean squared error"
    assert measure.of(y) == 0.0
    assert measure.of(y[:5] + 2) == pytest.approx(4.0, rel=1e-5)


def test_integers_for_one_output_are_numbers_too():
    measure = measure_of(np.zeros((12, 1), np.float32), data(np.arange(12) % 2))
    assert measure.metric == "mean squared error"
    assert measure.of(np.zeros((12, 1), np.float32)) == pytest.approx(0.5)


@pytest.mark.parametrize("y", [None, np.arange(12) % 2], ids=["no labels", "normal or not"])
def test_an_autoencoder_is_measured_against_its_input(y):
    measure = measure_of(X.copy(), data(y))
    assert measure.metric == "mean squared error"
    assert measure.of(X) == 0.0
    assert measure.of(X + 1) == pytest.approx(1.0, rel=1e-5)


def test_as_many_classes_as_features_are_classes_still():
    assert measure_of(X.copy(), data(np.arange(12) % 4)).metric == "top-1 %"


def test_one_number_without_labels_has_no_measure():
    assert measure_of(np.zeros((12, 1), np.float32), data(None)) is None


def test_classes_written_as_floats_are_told_so():
    part = data((np.arange(12) % 3).astype(np.float32)[:, None])
    splits = Splits(part, part, part, "0" * 64, "scores")
    with pytest.raises(BadData, match="1 number a sample, but the model gives 3") as caught:
        check_answers(splits, (1, 3))
    assert "astype('int64')" in str(caught.value)
    check_answers(splits, (1, 1))
