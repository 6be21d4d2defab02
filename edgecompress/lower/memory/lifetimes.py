"""When each activation is live, and how many bytes are live at each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgecompress.lower.memory.overlap import Allowance, shared_bytes
from edgecompress.lower.memory.views import owner
from edgecompress.lower.program import Buffer, Program

Lifetime = tuple[int, int, int]
"""(size in bytes, first step, last step): live in both and in every step between."""


def arena_buffers(program: Program) -> list[Buffer]:
    """What the arena must hold: the model's input and output, activations, scratch; no views."""
    return [buffer for buffer in program.buffers.values() if not buffer.view_of]


def with_lifetimes(program: Program) -> Program:
    """The same program with each buffer's first and last step read off its steps again.

    A scratch buffer is an argument of its one step; a view's steps are its parent's too. Buffers
    no step names are dropped.
    """
    first = dict.fromkeys(program.input_buffers, -1)
    last = dict.fromkeys(program.input_buffers, -1)
    for index, step in enumerate(program.steps):
        for argument in step.arguments:
            if argument.kind == "constant":
                continue
            for name in {argument.name, owner(program.buffers, argument.name)}:
                first.setdefault(name, index)
                last[name] = index
    last.update(dict.fromkeys(program.output_buffers, len(program.steps)))
    buffers = {
        name: replace(buffer, first_step=first[name], last_step=last[name])
        for name, buffer in program.buffers.items()
        if name in first
    }
    return replace(program, buffers=buffers)


def live_bytes(lifetimes: Sequence[Lifetime], allowed: Allowance | None = None) -> dict[int, int]:
    """Bytes live at each step that begins a lifetime, what `allowed` may share counted once.

    The live set only grows when a tensor begins, so these steps include the peak.
    """
    sizes = [size for size, _, _ in lifetimes]
    begins = sorted({first for _, first, _ in lifetimes})
    sharing: dict[int, list[tuple[tuple[int, int], int]]] = {}
    for pair, distance in (allowed or {}).items():
        last, first = lifetimes[pair[0]][2], lifetimes[pair[1]][1]
        for step in begins:
            if first <= step <= last:
                sharing.setdefault(step, []).append((pair, distance))
    return {
        step: sum(size for size, first, last in lifetimes if first <= step <= last)
        - shared_bytes(sizes, sharing.get(step, ()))
        for step in begins
    }


def peak_live(lifetimes: Sequence[Lifetime], allowed: Allowance | None = None) -> tuple[int, int]:
    """(step, bytes) of the first step at which most bytes are live; (0, 0) for no tensors.

    No placement can be smaller than this, and a placement this small is optimal.
    """
    by_step = live_bytes(lifetimes, allowed)
    if not by_step:
        return 0, 0
    step = max(by_step, key=lambda candidate: (by_step[candidate], -candidate))
    return step, by_step[step]
