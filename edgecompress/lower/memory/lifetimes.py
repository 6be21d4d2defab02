"""When each activation is live, and how many bytes are live at each step."""

from __future__ import annotations

from collections.abc import Sequence

from edgecompress.lower.program import Buffer, Program

Lifetime = tuple[int, int, int]
"""(size in bytes, first step, last step): live in both and in every step between."""


def arena_buffers(program: Program) -> list[Buffer]:
    """The activations the arena must hold: the model's input and output are the caller's memory."""
    return [buffer for buffer in program.buffers.values() if buffer.location == "arena"]


def live_bytes(lifetimes: Sequence[Lifetime]) -> dict[int, int]:
    """Bytes live at each step that begins a lifetime.

    The live set only grows when a tensor begins, so these steps include the peak.
    """
    return {
        step: sum(size for size, first, last in lifetimes if first <= step <= last)
        for step in sorted({first for _, first, _ in lifetimes})
    }


def peak_live(lifetimes: Sequence[Lifetime]) -> tuple[int, int]:
    """(step, bytes) of the first step at which most bytes are live; (0, 0) for no tensors.

    No placement can be smaller than this, and a placement this small is optimal.
    """
    by_step = live_bytes(lifetimes)
    if not by_step:
        return 0, 0
    step = max(by_step, key=lambda candidate: (by_step[candidate], -candidate))
    return step, by_step[step]
