"""Top-1 of a deployable model, by onnxruntime on the host."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

from edgecompress.errors import BadData
from edgecompress.model.data import Dataset

_THREADS = 2


def evaluate_deployable(model: onnx.ModelProto, dataset: Dataset, *, batch_size: int = 64) -> float:
    """Percent of `dataset` whose largest output is the label.

    The Quantize/Dequantize islands run as written (float arithmetic on dequantized integers):
    onnxruntime's own fusion to 8-bit kernels saturates on some x86 cores and is switched off.

    Raises:
        BadData: the data has no labels or is empty.
    """
    if dataset.y is None or len(dataset.x) == 0:
        raise BadData("Accuracy needs labelled data.", next_step="Give y beside x in the .npz.")
    outputs = run_deployable(model, dataset.x, batch_size=batch_size)
    predicted = outputs.reshape(len(outputs), -1).argmax(axis=1)
    return 100.0 * float(np.mean(predicted == dataset.y))


def run_deployable(model: onnx.ModelProto, x: np.ndarray, *, batch_size: int = 64) -> np.ndarray:
    """Outputs [N, ...] float32 for inputs [N, ...] float32 of a batch-1 model.

    A copy with a symbolic batch is tried first; a model with the batch written into a Reshape
    falls back to one input at a time.
    """
    x = np.ascontiguousarray(x, np.float32)
    try:
        outputs = _run(_symbolic_batch(model), x, batch_size)
    except (Fail, InvalidArgument, RuntimeException):
        outputs = np.empty(0)
    return outputs if len(outputs) == len(x) else _run(model, x, 1)


def _run(model: onnx.ModelProto, x: np.ndarray, batch_size: int) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _THREADS
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    starts = range(0, len(x), batch_size)
    batches = (x[start : start + batch_size] for start in starts)
    return np.concatenate([np.asarray(session.run(None, {name: batch})[0]) for batch in batches])


def _symbolic_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    batched = copy.deepcopy(model)
    del batched.graph.value_info[:]
    for value in [*batched.graph.input, *batched.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return batched
