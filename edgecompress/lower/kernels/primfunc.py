"""A kernel becomes a scheduled TIR function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import tvm
from tvm import s_tir, te, tirx

from edgecompress.lower.memory.overlap import kernel_overlaps

if TYPE_CHECKING:
    from edgecompress.lower.program import Kernel


def with_local_scratch(function: tirx.PrimFunc, count: int) -> tirx.PrimFunc:
    """The function with its `count` scratch parameters allocated inside.

    Relax calls a kernel with its inputs and output only; scratch becomes an argument again when
    the steps are read off (passes/linearize.py).
    """
    *inputs, output = function.params
    scratch = inputs[len(inputs) - count :]
    body = tirx.SeqStmt([*(tirx.AllocBuffer(buffer) for buffer in scratch), function.body])
    kept = [*inputs[: len(inputs) - count], output]
    return tirx.PrimFunc(kept, body, function.ret_type, attrs=function.attrs)


def build_function(
    kernel: Kernel, arguments: Sequence[tuple[tuple[int, ...], str]], name: str
) -> tirx.PrimFunc:
    """The scheduled PrimFunc of a kernel, its symbol `name`.

    Args:
        arguments: (shape, dtype) of each argument of `kernel.compute`: activations, then constants.
            The output is appended as the last parameter.
    """
    whole = getattr(kernel, "function", None)
    if whole is not None:
        function = whole(name)
        return function.without_attr("tirx.noalias") if kernel_overlaps(kernel) else function
    placeholders = [
        te.placeholder(shape, dtype, name=f"argument_{index}")
        for index, (shape, dtype) in enumerate(arguments)
    ]
    output = kernel.compute(*placeholders)
    function = te.create_prim_func([*placeholders, output])
    if kernel_overlaps(kernel):
        # its output may share memory with an input: LLVM must keep loads and stores in order
        function = function.without_attr("tirx.noalias")
    schedule = s_tir.Schedule(tvm.IRModule({name: function.with_attr("global_symbol", name)}))
    kernel.schedule(schedule, name)
    return schedule.mod[name]
