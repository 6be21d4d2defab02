"""The loop structure every weighted kernel shares: a tile of output channels per pass."""

from __future__ import annotations

from typing import Any


def tile_width(channels: int) -> int:
    """How many output channels are computed together: the largest of 4, 3, 2, 1 that divides.

    Each input value is loaded once per tile. Four accumulators, four weight pointers and the loop
    still fit the 13 usable registers of a Cortex-M.
    """
    return next(width for width in (4, 3, 2, 1) if channels % width == 0)


def tile_output_channels(schedule: Any, function_name: str, width: int) -> None:
    """Schedules the stages `accumulator`, `biased` and `output` (and inlines `padded`).

    Afterwards: loops over output positions and channel tiles; inside, the reduction loops around
    `width` unrolled multiply-accumulates; then bias, requantize and store. The accumulators live
    in registers, and no padded copy of the input exists.
    """
    schedule.work_on(function_name)

    def block(name: str) -> Any:
        return schedule.get_sblock(name, func_name=function_name)

    children = schedule.get_child_blocks(block("root"))
    if "padded" in [schedule.get(child).name_hint for child in children]:
        schedule.compute_inline(block("padded"))
    outer_loops = schedule.get_loops(block("output"))
    tiles, lanes = schedule.split(outer_loops[-1], [None, width])
    schedule.unroll(lanes)
    schedule.compute_at(block("biased"), tiles)
    schedule.compute_at(block("accumulator"), tiles)
    schedule.unroll(schedule.get_loops(block("biased"))[-1])
    # compute_at drops unit loops, so the loops below `tiles` are known by position: lanes first
    below = schedule.get_loops(block("accumulator"))[len(outer_loops) :]
    lane_loops, reduction = (below[:1], below[1:]) if width > 1 else ([], below)
    if lane_loops and reduction:
        schedule.reorder(*reduction, *lane_loops)
        schedule.unroll(lane_loops[0])
    if reduction:
        start = schedule.decompose_reduction(block("accumulator"), reduction[0])
        if lane_loops:
            schedule.unroll(schedule.get_loops(start)[-1])
