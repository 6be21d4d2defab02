"""Float functions are TVM's own; this gives them loops that fit a device.

Without TVM's runtime a temporary of a fused float function would be a stack allocation, often as
big as a tensor. So: data movement (padding, transposes) is computed where it is read, elementwise
maps are merged into one, a reduction with one elementwise reader is computed inside that reader's
loops, and every temporary still larger than `STACK_BYTES` becomes an extra argument, placed in the
arena like any activation.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import tvm
from tvm import s_tir, tirx
from tvm.ir import Call
from tvm.ir.expr import TensorLoad

from edgecompress.lower.program import Argument, Buffer, Program

STACK_BYTES = 128


def prepare_float_functions(program: Program) -> Program:
    """The same program with its float functions scheduled and their large temporaries hoisted."""
    names = {step.function for step in program.steps if step.is_float}
    functions, scratch = {}, {}
    for global_var, function in program.functions.functions.items():
        name = global_var.name_hint
        if name in names:
            function = _schedule(function, name)
            function, scratch[name] = _hoist(function)
        functions[name] = function
    steps, buffers = [], dict(program.buffers)
    for index, step in enumerate(program.steps):
        extra = []
        for ordinal, (shape, dtype) in enumerate(scratch.get(step.function, [])):
            name = f"{step.name}.scratch_{ordinal}"
            size_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
            buffers[name] = Buffer(name, shape, dtype, size_bytes, index, index)
            extra.append(Argument("buffer", name))
        arguments = (*step.arguments[:-1], *extra, step.arguments[-1])
        steps.append(replace(step, arguments=arguments))
    return replace(program, functions=tvm.IRModule(functions), steps=tuple(steps), buffers=buffers)


def _schedule(function: tirx.PrimFunc, name: str) -> tirx.PrimFunc:
    schedule = s_tir.Schedule(tvm.IRModule({name: function}))
    schedule.work_on(name)
    root = schedule.get_sblock("root", func_name=name)
    for block in schedule.get_child_blocks(root):
        consumers = schedule.get_consumers(block)
        if not consumers:
            continue
        if _is_reduction(schedule, block):
            if len(consumers) == 1 and not _is_reduction(schedule, consumers[0]):
                continue  # placed below, once its reader is final
        elif _moves_data(schedule, block) or (
            len(consumers) == 1 and not _is_reduction(schedule, consumers[0])
        ):
            _try(lambda block=block: schedule.compute_inline(block))
    for block in reversed(schedule.get_child_blocks(root)):
        consumers = schedule.get_consumers(block)
        if len(consumers) == 1 and _is_reduction(schedule, block):
            reader = consumers[0]
            if not _is_reduction(schedule, reader):
                loop = schedule.get_loops(reader)[-1]
                _try(lambda block=block, loop=loop: schedule.compute_at(block, loop))
    return schedule.mod[name]


def _try(action) -> None:
    """Schedule rules are optional: TVM says by an error that one does not apply here."""
    try:
        action()
    except s_tir.ScheduleError:
        return


def _is_reduction(schedule: s_tir.Schedule, block: object) -> bool:
    kinds = {int(variable.iter_type) for variable in schedule.get(block).iter_vars}
    return kinds != {int(tirx.IterVar.DataPar)} and bool(kinds)


def _moves_data(schedule: s_tir.Schedule, block: object) -> bool:
    """True when the block's value is a load, a constant, or a choice between them."""
    body = schedule.get(block).body
    return isinstance(body, tirx.BufferStore) and _is_load(body.value)


def _is_load(value: tvm.ir.PrimExpr) -> bool:
    if isinstance(value, TensorLoad) or hasattr(value, "value"):
        return True
    if isinstance(value, Call) and value.op.name.endswith("if_then_else"):
        return all(_is_load(branch) for branch in value.args[1:])
    return False


def _hoist(
    function: tirx.PrimFunc,
) -> tuple[tirx.PrimFunc, list[tuple[tuple[int, ...], str]]]:
    """Temporaries that live across the whole function become parameters before the output."""
    located = tvm.transform.Sequential(
        [
            s_tir.transform.LowerInitBlock(),
            s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        ]
    )(tvm.IRModule({"f": function}))
    function = located["f"]
    block = function.body.block
    large = [buffer for buffer in block.alloc_buffers if _bytes(buffer) > STACK_BYTES]
    if not large:
        return function, []
    kept = [buffer for buffer in block.alloc_buffers if _bytes(buffer) <= STACK_BYTES]
    body = s_tir.SBlockRealize(
        function.body.iter_values,
        function.body.predicate,
        s_tir.SBlock(
            block.iter_vars, block.reads, block.writes, block.name_hint, block.body,
            block.init, kept, block.match_buffers, block.annotations,
        ),
    )  # fmt: skip
    parameters = [*function.params[:-1], *large, function.params[-1]]
    hoisted = tirx.PrimFunc(parameters, body, function.ret_type, attrs=function.attrs)
    return hoisted, [(_shape(buffer), str(buffer.dtype)) for buffer in large]


def _shape(buffer: tirx.Buffer) -> tuple[int, ...]:
    return tuple(int(size) for size in buffer.shape)


def _bytes(buffer: tirx.Buffer) -> int:
    return int(np.prod(_shape(buffer))) * np.dtype(str(buffer.dtype)).itemsize
