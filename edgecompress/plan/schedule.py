"""How much an effort may compute, in training steps: never in seconds, so that reruns agree."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

Effort = Literal["fast", "balanced", "max"]


@dataclass(frozen=True)
class Schedule:
    """Fine-tuning steps for a model of `REFERENCE_MACS`: lighter ones get more, heavier ones fewer.

    Steps follow the inverse of the MACs, so that an effort is about the same time for every model,
    but a step of a light model costs more than its MACs say, so both have a most. A heavy model is
    also slow to compile, validate and emulate; where that is a large part of the time, steps fall
    with MACs^-1.5 above `heavy_macs`, which may lie below `REFERENCE_MACS`.

    Attributes:
        judge_steps: recovery of each candidate before it is judged; 80 rank plans well.
        most_judge_steps: however light the model is.
        final_steps: of the winner, from the start again.
        most_final_steps: the same of these.
        least_steps: of either, however heavy it is.
        candidates: plans that are judged at most.
        heavy_macs: above so many, steps fall faster.
    """

    judge_steps: int
    most_judge_steps: int
    final_steps: int
    most_final_steps: int
    least_steps: int
    candidates: int
    heavy_macs: float = math.inf


REFERENCE_MACS = 3e7

_SCHEDULES: dict[Effort, Schedule] = {
    "fast": Schedule(22, 80, 220, 3200, 15, 4, heavy_macs=1.5e7),
    "balanced": Schedule(80, 213, 1400, 9300, 40, 5),
    "max": Schedule(120, 320, 12_000, 80_000, 80, 6),
}


def schedule_of(effort: Effort, macs: int) -> Schedule:
    """The effort's schedule for a model of so many multiply-accumulates."""
    schedule, macs = _SCHEDULES[effort], max(1, macs)
    share = REFERENCE_MACS / macs * min(1.0, schedule.heavy_macs / macs) ** 0.5
    return replace(
        schedule,
        judge_steps=_scaled(schedule, schedule.judge_steps, share, schedule.most_judge_steps),
        final_steps=_scaled(schedule, schedule.final_steps, share, schedule.most_final_steps),
    )


def _scaled(schedule: Schedule, steps: int, share: float, most: int) -> int:
    return max(schedule.least_steps, min(most, round(steps * share)))
