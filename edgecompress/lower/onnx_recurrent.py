"""ONNX GRU and LSTM into Relax, which has no such operators: one call of a named function.

`edgecompress.LSTM.forward(x, W, R, B)` gives the tuple of Y and the last states that ONNX defines;
`kernels/recurrence.py` recognises it. Nothing implements the name: a model in which it is left
cannot be lowered.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax
from tvm.relax.frontend.onnx.onnx_frontend import OnnxOpConverter

_OUTPUTS = {"GRU": 2, "LSTM": 3}


def _call(kind: str, bb: Any, inputs: Any, attr: Any) -> relax.Expr:
    x, weights, recurrence = (bb.normalize(inputs[index]) for index in range(3))
    bias = inputs[3]
    direction = _text(attr.get("direction", "forward"))
    hidden = int(recurrence.ty.shape.values[2])
    steps, batch = (int(size) for size in x.ty.shape.values[:2])
    if direction == "bidirectional" or batch != 1 or attr.get("layout", 0):
        raise ValueError(f"{kind}: one direction, a batch of 1 and time first are supported")
    if kind == "GRU" and not attr.get("linear_before_reset", 0):
        raise ValueError("GRU: linear_before_reset=0 has no integer kernel")
    if any(given is not None for given in list(inputs)[4:]) or bias is None:
        raise ValueError(f"{kind}: it must have a bias and start from zeros")
    states = [relax.TensorType([steps, 1, 1, hidden], "float32")]
    states += [relax.TensorType([1, 1, hidden], "float32")] * (_OUTPUTS[kind] - 1)
    called = f"edgecompress.{kind}.{direction}"
    types = relax.TupleType(states)
    call = relax.op.call_pure_packed(called, x, weights, recurrence, bias, ty_args=types)
    return bb.normalize(call)


class _Gru(OnnxOpConverter):
    @classmethod
    def _impl_v1(cls, bb: Any, inputs: Any, attr: Any, _params: Any) -> Any:
        return _call("GRU", bb, inputs, attr)


class _Lstm(OnnxOpConverter):
    @classmethod
    def _impl_v1(cls, bb: Any, inputs: Any, attr: Any, _params: Any) -> Any:
        return _call("LSTM", bb, inputs, attr)


CONVERTERS: dict[str, type[OnnxOpConverter]] = {"GRU": _Gru, "LSTM": _Lstm}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def unlowered(module: tvm.IRModule) -> list[str]:
    """GRU and LSTM for each recurrent call a module still holds."""
    return [
        str(binding.value.args[0].global_symbol).split(".")[1]
        for block in module["main"].body.blocks
        for binding in block.bindings
        if isinstance(binding.value, relax.Call)
        and isinstance(binding.value.op, tvm.ir.Op)
        and binding.value.op.name == "relax.call_pure_packed"
    ]
