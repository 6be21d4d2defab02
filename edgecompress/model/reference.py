"""Runs a model as its own format defines it, on the host: what every image is compared with."""

from __future__ import annotations

import copy
import logging

import numpy as np
import onnx
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

_THREADS = 2


def run_onnx(model: onnx.ModelProto, x: np.ndarray, *, batch_size: int = 64) -> np.ndarray:
    """Outputs [N, ...] float32 of a batch-1 ONNX model for inputs [N, ...] float32.

    Quantize/Dequantize islands run as written (float arithmetic on dequantized integers):
    onnxruntime's own fusion to 8-bit kernels saturates on some x86 cores and is switched off.
    A copy with a symbolic batch is tried first; a model with the batch written into a Reshape
    runs one input at a time.
    """
    x = np.ascontiguousarray(x, np.float32)
    try:
        outputs = _run(_symbolic_batch(model), x, batch_size)
    except (Fail, InvalidArgument, RuntimeException):
        outputs = np.empty(0)
    return outputs if len(outputs) == len(x) else _run(model, x, 1)


def run_tflite(model: bytes, x: np.ndarray) -> np.ndarray:
    """Dequantized outputs [N, ...] of an int8 .tflite under LiteRT's reference kernels.

    Args:
        x: [N, ...] float32 in real units; quantized with the model's own input parameters.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    logging.getLogger("ai_edge_litert").setLevel(logging.ERROR)
    interpreter = Interpreter(
        model_content=model, experimental_op_resolver_type=OpResolverType.BUILTIN_REF
    )
    interpreter.allocate_tensors()
    given, made = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero_point = given["quantization"]
    out_scale, out_zero_point = made["quantization"]
    outputs = []
    for sample in x:
        stored = np.clip(np.round(sample / scale) + zero_point, -128, 127).astype(np.int8)
        interpreter.set_tensor(given["index"], stored.reshape(given["shape"]))
        interpreter.invoke()
        result = interpreter.get_tensor(made["index"]).astype(np.float32)
        outputs.append((result - out_zero_point) * out_scale)
    return np.concatenate(outputs)


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
