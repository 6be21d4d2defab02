"""How much an effort may compute, in training steps: never in seconds, so that reruns agree."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Effort = Literal["fast", "balanced", "max"]


@dataclass(frozen=True)
class Schedule:
    """Fine-tuning steps for a model of `reference_macs`: lighter ones get more, heavier ones fewer.

    Steps follow the inverse of the MACs, so that an effort is about the same time for every model,
    up to `_MOST_SHARE` times as many.

    Attributes:
        judge_steps: recovery of each candidate before it is judged; 80 rank plans well.
        final_steps: of the winner, from the start again.
        least_steps: however heavy the model is.
        candidates: plans that are judged at most.
    """

    judge_steps: int
    final_steps: int
    least_steps: int
    reference_macs: float
    candidates: int


_MOST_SHARE = 4.0

_SCHEDULES: dict[Effort, Schedule] = {
    "fast": Schedule(40, 400, 15, 3e7, 4),
    "balanced": Schedule(80, 1200, 40, 1e8, 5),
    "max": Schedule(120, 10_000, 80, 4e8, 6),
}


def schedule_of(effort: Effort, macs: int) -> Schedule:
    """The effort's schedule for a model of so many multiply-accumulates."""
    schedule = _SCHEDULES[effort]
    share = min(_MOST_SHARE, schedule.reference_macs / max(1, macs))
    return replace(
        schedule,
        judge_steps=max(schedule.least_steps, round(schedule.judge_steps * min(2.0, share))),
        final_steps=max(schedule.least_steps, round(schedule.final_steps * share)),
    )
