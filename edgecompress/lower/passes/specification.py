"""What a module may contain after each stage, written down and checked."""

from __future__ import annotations

import tvm
from tvm import relax, tirx

from edgecompress.errors import BuildFailed
from edgecompress.lower.memory.lifetimes import arena_buffers
from edgecompress.lower.memory.overlap import allowances, is_apart_or_allowed
from edgecompress.lower.program import Program

_INTEGER_OPERATORS = ("relax.call_tir", "relax.reshape")
_BUFFER_OPERATORS = ("relax.builtin.alloc_tensor", "relax.memory.alloc_tensor", "relax.reshape")


def _bindings(module: tvm.IRModule) -> list[tuple[relax.Var, relax.Expr]]:
    return [
        (binding.var, binding.value)
        for block in module["main"].body.blocks
        for binding in block.bindings
    ]


def check_integer_only(module: tvm.IRModule) -> None:
    """After integerize: kernel calls and reshapes on int8 tensors, nothing else.

    Raises:
        BuildFailed: naming the first binding that is anything else.
    """
    for variable, value in _bindings(module):
        if isinstance(value, (relax.Var, relax.Tuple)):
            continue
        op = value.op.name if isinstance(value, relax.Call) else type(value).__name__
        if op not in _INTEGER_OPERATORS or str(variable.ty.dtype) != "int8":
            raise BuildFailed(f"After integerize '{variable}' is still {op} of {variable.ty}.")


def check_tir_calls_only(module: tvm.IRModule) -> None:
    """After bufferize: allocations, reshapes and calls of PrimFuncs with static shapes.

    Raises:
        BuildFailed: naming the first binding that is anything else.
    """
    for variable, value in _bindings(module):
        if not isinstance(value, relax.Call):
            continue
        if isinstance(value.op, tvm.ir.Op):
            legal = value.op.name in _BUFFER_OPERATORS
        else:
            called = isinstance(value.op, tvm.ir.GlobalVar)
            legal = called and isinstance(module[value.op], tirx.PrimFunc)
        if not legal:
            raise BuildFailed(f"After bufferize '{variable}' is {value.op}, not a kernel call.")


def check_placed(program: Program) -> None:
    """After place: every buffer lies inside the arena, and live ones overlap only where a kernel
    allows it.

    Raises:
        BuildFailed: naming the step at fault, its live tensors and their bytes.
    """
    buffers = arena_buffers(program)
    allowed = allowances(program, buffers)
    for buffer in buffers:
        end = buffer.offset_bytes + buffer.size_bytes
        if buffer.offset_bytes % program.arena_alignment or end > program.arena_bytes:
            raise BuildFailed(
                f"Buffer {buffer.name} ends at {end}; the arena has {program.arena_bytes} bytes."
            )
        for arena in program.arenas[1:]:
            if buffer.offset_bytes < arena.offset_bytes < end:
                raise BuildFailed(
                    f"Buffer {buffer.name} lies across the start of {arena.region}'s arena, "
                    f"from {buffer.offset_bytes} to {end}."
                )
    for first, one in enumerate(buffers):
        for second, two in enumerate(buffers[:first]):
            if one.first_step > two.last_step or two.first_step > one.last_step:
                continue
            pair = (first, second) if (first, second) in allowed else (second, first)
            source, output = buffers[pair[0]], buffers[pair[1]]
            if not is_apart_or_allowed(source, output, allowed.get(pair)):
                step = max(one.first_step, two.first_step)
                live = ", ".join(
                    f"{item.name} ({item.size_bytes} bytes at {item.offset_bytes})"
                    for item in buffers
                    if item.first_step <= step <= item.last_step
                )
                raise BuildFailed(
                    f"Buffers {two.name} and {one.name} overlap while both live at step "
                    f"{step}: {live}."
                )
