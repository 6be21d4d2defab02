"""The search: nothing when int8 alone fits, else a few candidates, briefly trained, and the best.

    compile -> fits? empty plan
    groups -> measured damage -> candidates that fit as compiled -> a few steps -> validation
    the best becomes the Plan; `realize` makes it again from the source and trains it fully

Every decision depends on the seed, the model and the data, never on the clock, so the same call
gives the same Plan and the same Plan the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from edgecompress.compress.apply import apply_plan
from edgecompress.compress.finetune import distill
from edgecompress.compress.groups import ChannelGroup, find_groups
from edgecompress.errors import DoesNotFit
from edgecompress.model.data import Dataset, Splits
from edgecompress.model.trainable import Trainable
from edgecompress.plan.candidates import Candidate, Problem, narrowest, propose
from edgecompress.plan.choices import Choices
from edgecompress.plan.cost import Corrections, corrections_from, evaluate, predict
from edgecompress.plan.explain import explain_infeasible
from edgecompress.plan.network import Network, read_network
from edgecompress.plan.preview import preview
from edgecompress.plan.sensitivity import damage, measure, outputs
from edgecompress.progress import SILENT, Progress
from edgecompress.records import Budget, Optimize, Plan, Prediction, SizeReport
from edgecompress.target.schema import DeviceProfile
from edgecompress.units import format_bytes

Effort = Literal["fast", "balanced"]

_CALIBRATION_SAMPLES = 512
_JUDGED_SAMPLES = 1000
_CHECKED_SAMPLES = 200
"""Validation samples `distill` checks itself on during the short runs that rank candidates."""
_THREADS = 2
_PROPOSAL_ROUNDS = 4


@dataclass(frozen=True)
class _Schedule:
    """Fine-tuning steps for a model of up to `reference_macs`; heavier models get fewer."""

    judge_steps: int
    final_steps: int
    least_steps: int
    reference_macs: float


_SCHEDULES: dict[Effort, _Schedule] = {
    "fast": _Schedule(40, 400, 15, 3e7),
    "balanced": _Schedule(80, 2000, 40, 1e8),
}


def make_plan(
    trainable: Trainable,
    splits: Splits,
    profile: DeviceProfile,
    budget: Budget,
    *,
    model_hash: str,
    effort: Effort = "fast",
    seed: int = 0,
    progress: Progress = SILENT,
    corrections: Corrections | None = None,
    optimize: Optimize = "balanced",
) -> Plan:
    """The plan with the best validation score among those predicted to fit.

    Args:
        corrections: `cost.corrections_from` an image already linked, where there is one.
        optimize: what the image's kernels will be chosen for.

    Raises:
        DoesNotFit: no plan fits; says which budget, by how much, where, and the cheapest way out.
    """
    torch.set_num_threads(min(_THREADS, torch.get_num_threads()))
    groups = prunable_groups(trainable)
    network = read_network(trainable, groups)
    account = _Account(profile, splits.train.x, corrections or {}, optimize)
    whole = account.of(trainable)
    table = corrections_from(evaluate(network, profile), _as_report(whole))
    problem = Problem(network, profile, budget, table)
    plan = Plan(
        model_hash=model_hash,
        data_hash=splits.hash,
        target=profile.name,
        budget=budget,
        seed=seed,
        effort=effort,
        calibration_samples=len(calibration_samples(splits, seed)),
        predicted=whole,
    )
    if problem.fits_exactly(whole):
        progress.note("int8 alone fits: nothing is pruned or factorized.")
        return plan
    calibration = calibration_samples(splits, seed)
    choices = measure(trainable, problem.network, groups, calibration, progress)
    problem, candidates = _compiled(trainable, plan, problem, choices, account, calibration)
    schedule = _scheduled(effort, whole.macs)
    best = _judge(trainable, plan, candidates, problem, splits, schedule, progress)
    progress.note(
        f"Chosen: {best.name}, predicted {format_bytes(best.predicted.flash_bytes)} of flash and "
        f"{format_bytes(best.predicted.ram_bytes)} of RAM."
    )
    return _with(plan, best, problem.network, schedule.final_steps)


def realize(
    trainable: Trainable, plan: Plan, splits: Splits, progress: Progress = SILENT
) -> Trainable:
    """The plan's model: compressed, its BatchNorm re-estimated, fine-tuned against the original.

    Raises:
        BadInput: the plan names groups or layers this model does not have.
    """
    torch.set_num_threads(min(_THREADS, torch.get_num_threads()))
    if not plan.widths and not plan.low_rank:
        return trainable
    compressed = apply_plan(trainable, plan, calibration_samples(splits, plan.seed))
    if plan.finetune_steps == 0:
        return compressed
    progress.stage("Fine-tune", plan.finetune_steps)
    return distill(
        compressed,
        trainable,
        splits,
        steps=plan.finetune_steps,
        seed=plan.seed,
        progress=progress,
    )


def calibration_samples(splits: Splits, seed: int) -> torch.Tensor:
    """[N, ...] float32: a seeded choice of training samples, the same for a plan and its replay."""
    x = splits.train.x
    order = np.random.default_rng(seed).permutation(len(x))[:_CALIBRATION_SAMPLES]
    return torch.from_numpy(np.ascontiguousarray(x[np.sort(order)]))


def prunable_groups(trainable: Trainable) -> list[ChannelGroup]:
    """The groups whose every producer makes all of the group's channels, more than four of them.

    A group that concatenation joins with narrower producers keeps its width.
    """
    labelled = read_network(trainable, find_groups(trainable))
    made: dict[str, set[int]] = {}
    for tensor in labelled.tensors.values():
        for part in tensor.parts:
            if part.group is not None:
                made.setdefault(part.group, set()).add(part.channels)
    return [
        group
        for group in find_groups(trainable)
        if made.get(group.name) == {group.channels} and group.channels > 4
    ]


def score(model: Trainable, teacher: torch.Tensor, validation: Dataset) -> tuple[float, float]:
    """(top-1 % on the labels, or 0 without any; minus the divergence from the teacher's outputs).

    Larger is better, the first number first.
    """
    x = torch.from_numpy(validation.x[: len(teacher)])
    made = outputs(model, x)
    top1 = 0.0
    if validation.y is not None and made.dim() == 2:
        labels = torch.from_numpy(validation.y[: len(teacher)])
        top1 = 100.0 * float((made.argmax(1) == labels).float().mean())
    return top1, -damage(teacher, made)


@dataclass(frozen=True)
class _Account:
    """Predictions by the compiler itself; by the table alone where no budget needs better."""

    profile: DeviceProfile
    x: np.ndarray
    corrections: Corrections
    optimize: Optimize

    def of(self, trainable: Trainable) -> Prediction:
        if self.profile.kind != "mcu":
            return predict(trainable, self.profile, self.corrections)
        return preview(trainable, self.x, self.profile, self.corrections, self.optimize)


def _as_report(prediction: Prediction) -> SizeReport:
    return SizeReport(flash_sections=prediction.flash_parts, ram_parts=prediction.ram_parts)


def _compiled(
    trainable: Trainable,
    plan: Plan,
    problem: Problem,
    choices: Choices,
    account: _Account,
    calibration: torch.Tensor,
) -> tuple[Problem, list[Candidate]]:
    """Candidates that fit as compiled. While none does, the table learns from what came out.

    Raises:
        DoesNotFit: nothing fits; says which budget, by how much, where, and the cheapest way out.
    """
    exact = plan.predicted
    for _ in range(_PROPOSAL_ROUNDS):
        proposed = propose(problem, choices)
        candidates = proposed or [narrowest(problem, choices)]
        fitting: list[Candidate] = []
        for candidate in candidates:
            student = apply_plan(trainable, _with(plan, candidate, problem.network, 0), calibration)
            exact = account.of(student)
            if problem.fits_exactly(exact):
                fitting.append(replace(candidate, predicted=exact))
        if fitting:
            return problem, fitting
        learned = corrections_from(candidates[-1].predicted, _as_report(exact), problem.corrections)
        problem = replace(problem, corrections=learned)
        if not proposed:
            raise explain_infeasible(problem, choices)
    raise _realised_too_large(exact, problem)


def _judge(
    trainable: Trainable,
    plan: Plan,
    candidates: Sequence[Candidate],
    problem: Problem,
    splits: Splits,
    schedule: _Schedule,
    progress: Progress,
) -> Candidate:
    """Trains each candidate a little and keeps the best on validation."""
    if len(candidates) == 1:
        return candidates[0]
    calibration = calibration_samples(splits, plan.seed)
    held_out = splits.validation if len(splits.validation.x) else splits.train
    teacher = outputs(trainable, torch.from_numpy(held_out.x[:_JUDGED_SAMPLES]))
    progress.stage("Try candidates", schedule.judge_steps * len(candidates))
    checked = Dataset(
        held_out.x[:_CHECKED_SAMPLES],
        None if held_out.y is None else held_out.y[:_CHECKED_SAMPLES],
    )
    short = replace(splits, validation=checked)
    ranked: list[tuple[tuple[float, float], Candidate]] = []
    for candidate in candidates:
        student = apply_plan(trainable, _with(plan, candidate, problem.network, 0), calibration)
        steps = schedule.judge_steps
        student = distill(student, trainable, short, steps=steps, seed=plan.seed, progress=progress)
        found = score(student, teacher, held_out)
        progress.note(f"Candidate '{candidate.name}': {found[0]:.2f} % after {steps} steps.")
        ranked.append((found, candidate))
    return max(ranked, key=lambda item: item[0])[1]


def _with(plan: Plan, candidate: Candidate, network: Network, finetune_steps: int) -> Plan:
    """The plan carrying a candidate; groups that keep every channel are left out."""
    full = {
        part.group: part.channels
        for tensor in network.tensors.values()
        for part in tensor.parts
        if part.group is not None
    }
    narrowed = {group: kept for group, kept in candidate.widths.items() if kept < full[group]}
    return plan.model_copy(
        update={
            "widths": narrowed,
            "low_rank": dict(candidate.low_rank),
            "weights": dict(candidate.weights),
            "predicted": candidate.predicted,
            "finetune_steps": finetune_steps,
        }
    )


def _scheduled(effort: Effort, macs: int) -> _Schedule:
    schedule = _SCHEDULES[effort]
    share = min(1.0, schedule.reference_macs / max(1, macs))
    return replace(
        schedule,
        judge_steps=max(schedule.least_steps, round(schedule.judge_steps * share)),
        final_steps=max(schedule.least_steps, round(schedule.final_steps * share)),
    )


def _realised_too_large(exact: Prediction, problem: Problem) -> DoesNotFit:
    """Every candidate came out of compression larger than it was planned."""
    flash = problem.flash_over(exact) > 0
    resource = "flash" if flash else "ram"
    needed = exact.flash_bytes if flash else exact.ram_bytes
    limit = (problem.budget.flash_bytes if flash else problem.budget.ram_bytes) or 0
    return DoesNotFit(
        f"The compressed model needs {format_bytes(needed)} of {resource}; the budget is "
        f"{format_bytes(limit)}, at step {exact.peak_step}.",
        resource=resource,
        needed=needed,
        limit=limit,
        next_step=f"Raise --{resource} to {-(-needed // 1024)}K.",
    )
