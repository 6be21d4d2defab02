"""The judged candidates as a front: what more flash, RAM or compute would buy."""

from __future__ import annotations

from collections.abc import Sequence

from edgecompress.plan.trials import Trial
from edgecompress.records import ParetoPoint, Plan


def pareto(trials: Sequence[Trial], chosen: Plan) -> tuple[ParetoPoint, ...]:
    """Every trial as a point, smallest flash first; those no other beats are on the front."""
    points = [_point(trial, trials, chosen) for trial in trials]
    return tuple(sorted(points, key=lambda point: (point.flash_bytes, point.name)))


def _point(trial: Trial, trials: Sequence[Trial], chosen: Plan) -> ParetoPoint:
    predicted = trial.plan.predicted
    return ParetoPoint(
        name=trial.name,
        metric=trial.score.metric,
        value=trial.score.value,
        divergence=trial.score.divergence,
        flash_bytes=predicted.flash_bytes,
        ram_bytes=predicted.ram_bytes,
        macs=predicted.macs,
        steps=trial.plan.finetune_steps,
        plan=trial.file_name(),
        on_front=not any(dominates(other, trial) for other in trials),
        chosen=same_choice(trial.plan, chosen),
    )


def dominates(one: Trial, other: Trial) -> bool:
    """At least as good everywhere and better somewhere: score, flash, RAM and MACs."""
    ours, theirs = _goodness(one), _goodness(other)
    return ours != theirs and all(a >= b for a, b in zip(ours, theirs, strict=True))


def same_choice(one: Plan, other: Plan) -> bool:
    """The same model, whatever budget it was chosen under and however long it is trained."""
    ours, theirs = (
        (plan.widths, plan.low_rank, plan.weights, plan.student) for plan in (one, other)
    )
    return ours == theirs


def _goodness(trial: Trial) -> tuple[float, ...]:
    predicted = trial.plan.predicted
    sizes = (predicted.flash_bytes, predicted.ram_bytes, predicted.macs)
    return (trial.score.comparable, *(-size for size in sizes))
