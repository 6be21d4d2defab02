"""Top-1 of a deployable model, by onnxruntime on the host."""

from __future__ import annotations

import numpy as np
import onnx

from edgecompress.errors import BadData
from edgecompress.model.data import Dataset
from edgecompress.model.reference import run_onnx


def evaluate_deployable(model: onnx.ModelProto, dataset: Dataset) -> float:
    """Percent of `dataset` whose largest output is the label.

    Raises:
        BadData: the data has no labels or is empty.
    """
    if dataset.y is None or len(dataset.x) == 0:
        raise BadData("Accuracy needs labelled data.", next_step="Give y beside x in the .npz.")
    outputs = run_onnx(model, dataset.x)
    predicted = outputs.reshape(len(outputs), -1).argmax(axis=1)
    return 100.0 * float(np.mean(predicted == dataset.y))
