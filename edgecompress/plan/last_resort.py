"""When no plan of the search fits, or hardly anything would be left of the model: other ways.

    low rank        every layer factorized, see `plan.low_rank`
    thin ...        every width by one factor, four channels at the least, in the storage named
    student ...     a compact network that learns from the model, see `model.compact`

All that fit as compiled are trained for a while and the best on validation data is taken. A student
is the only one that gives up the model's own weights, so the result names it. Where the search has
found a plan that keeps less than a tenth of the weight bytes, only students compete with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch

from edgecompress.compress.apply import apply_plan
from edgecompress.compress.finetune import Task
from edgecompress.compress.lowrank import Moments, observe_all
from edgecompress.compress.student import output_count
from edgecompress.errors import BadInput, DoesNotFit
from edgecompress.model.answers import check_answers
from edgecompress.model.compact import Student, students
from edgecompress.model.data import Splits
from edgecompress.model.trainable import Trainable
from edgecompress.plan.account import Account, as_report
from edgecompress.plan.candidates import FEWEST_INT4_WEIGHTS, Candidate, Problem, uniform
from edgecompress.plan.choices import Choices
from edgecompress.plan.cost import Corrections, corrections_from, evaluate, weight_count
from edgecompress.plan.formats import encoded_formats
from edgecompress.plan.latency import time_correction
from edgecompress.plan.low_rank import LOW_RANK, low_rank_candidates
from edgecompress.plan.network import Network, prunable_groups, read_network
from edgecompress.plan.program_cost import assemble
from edgecompress.plan.schedule import Effort, schedule_of
from edgecompress.plan.scores import Scorer, best_of
from edgecompress.plan.search import Found, search
from edgecompress.plan.trials import MemoryStore, Store, calibration_samples, run_trials
from edgecompress.progress import SILENT, Progress
from edgecompress.records import Budget, Optimize, Plan, Prediction, WeightStorage
from edgecompress.target.schema import DeviceProfile
from edgecompress.units import format_bytes

_STORAGES = (WeightStorage(format="int4"), WeightStorage(format="shared4"))
_LEAST_CHANNELS = 4
_ATTEMPTS = 4
_MORE_STEPS = 3.0
"""Of a candidate's usual ones: what starts from nothing shows itself later."""
_MORE_FINAL_STEPS = 2
_LITTLE = 0.1


def find_plan(
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
    metric: str | None = None,
    store: Store | None = None,
    jobs: int = 1,
    ray: str | None = None,
    **more: Any,
) -> Found:
    """`search`, and where it finds nothing that fits, the last resorts.

    Args:
        more: what else `search` takes.

    Raises:
        DoesNotFit: not even the smallest student fits; says what was tried and the way out.
    """
    _refuse_impossible(profile, budget)
    with torch.no_grad():
        check_answers(splits, tuple(trainable.graph(trainable.example).shape))
    store = store or MemoryStore()
    found, refused = None, None
    network = read_network(trainable, prunable_groups(trainable))
    try:
        found = search(
            trainable, splits, profile, budget, model_hash=model_hash, effort=effort, seed=seed,
            progress=progress, corrections=corrections, optimize=optimize, metric=metric,
            store=store, jobs=jobs, ray=ray, **more,
        )  # fmt: skip
    except DoesNotFit as error:
        refused = error
        progress.note(f"No plan of the search fits: {refused.message}")
    if found is not None and not _little_left(found.plan, network):
        return found
    account = Account(profile, budget, splits.train.x, _cautious(corrections or {}), optimize)
    whole = account.of(trainable)
    table = corrections_from(
        evaluate(network, profile), as_report(whole), time_correction(corrections)
    )
    calibration = calibration_samples(splits, seed)
    plan = Plan(
        model_hash=model_hash, data_hash=splits.hash, target=profile.name, budget=budget,
        seed=seed, effort=effort, calibration_samples=len(calibration), predicted=whole,
    )  # fmt: skip
    resort = _LastResort(
        trainable, splits, Problem(network, profile, budget, table), account, plan, calibration
    )
    progress.stage("Compile last resorts" if found is None else "Compile students")
    named = list(resort.compressed()) if found is None else []
    named += resort.students()
    if refused is not None and not named:
        raise resort.refusal(refused)
    if found is not None:
        if not named:
            return found
        named.append(("planned", found.plan))
    scorer = Scorer.of_source(trainable, splits, metric)
    judged = _judged(trainable, splits, named, scorer, store, progress, jobs, ray)
    if found is None:
        return judged
    if judged.plan.student is None:
        return found
    tried = (*found.trials, *(trial for trial in judged.trials if trial.plan.student is not None))
    return judged.model_copy(update={"trials": tried, "sensitivity": found.sensitivity})


def _cautious(corrections: Corrections) -> Corrections:
    """Another network's kernels say nothing against the table's: only that it may be too low."""
    return {
        part: max(1.0, factor) if part == "flash.kernels" else factor
        for part, factor in corrections.items()
    }


def _little_left(plan: Plan, network: Network) -> bool:
    """Whether the plan keeps less than a tenth of the bytes the weights take in int8."""
    whole = sum(weight_count(network, step, {}) for step in network.steps)
    return plan.predicted.flash_parts.get("weights", whole) < _LITTLE * whole


def _judged(
    trainable: Trainable,
    splits: Splits,
    found: Sequence[tuple[str, Plan]],
    scorer: Scorer,
    store: Store,
    progress: Progress,
    jobs: int,
    ray: str | None,
) -> Found:
    """The best after some training, each given steps by its own size."""
    named = []
    for name, plan in found:
        steps = schedule_of(plan.effort, plan.predicted.macs).judge_steps
        named.append((name, plan.model_copy(update={"finetune_steps": round(_MORE_STEPS * steps)})))
    trials = run_trials(trainable, splits, named, scorer, store, progress, jobs, ray)
    best = trials[best_of([trial.score for trial in trials], len(scorer.held_out))]
    predicted = best.plan.predicted
    kind = "in place of the model" if best.plan.student is not None else "of the model"
    progress.note(
        f"Chosen: {best.name} {kind}, predicted {format_bytes(predicted.flash_bytes)} of flash and "
        f"{format_bytes(predicted.ram_bytes)} of RAM."
    )
    final = schedule_of(best.plan.effort, predicted.macs).final_steps
    if best.plan.student is not None:
        final *= _MORE_FINAL_STEPS
    plan = best.plan.model_copy(update={"finetune_steps": final})
    return Found(plan=plan, trials=tuple(trials), objective=scorer.objective)


@dataclass
class _LastResort:
    """Everything left to try for one model; `smallest` is the least that was compiled."""

    trainable: Trainable
    splits: Splits
    problem: Problem
    account: Account
    plan: Plan
    calibration: torch.Tensor
    smallest: tuple[str, Prediction] | None = None

    def compiled(
        self, name: str, moments: Mapping[str, Moments] | None = None, **chosen: Any
    ) -> Plan:
        """The empty plan with these choices and the compiler's account of it."""
        plan = self.plan.model_copy(update=chosen)
        model = apply_plan(self.trainable, plan, self.calibration, moments=moments)
        predicted = self.account.of(model, dict(plan.weights))
        if self.smallest is None or predicted.flash_bytes < self.smallest[1].flash_bytes:
            self.smallest = (name, predicted)
        return plan.model_copy(update={"predicted": predicted})

    def compressed(self) -> Iterator[tuple[str, Plan]]:
        """Factorized, and thinned in every storage that makes weights smaller here."""
        formats = encoded_formats(self.problem.profile, _STORAGES)
        moments = observe_all(self.trainable, self.calibration)
        factorized = low_rank_candidates(
            self.trainable, moments, self.problem, self.plan.predicted, formats,
            lambda item: self.compiled(
                LOW_RANK, moments, low_rank=item.low_rank, weights=item.weights
            ).predicted,
        )  # fmt: skip
        for candidate in islice(factorized, 1):
            yield candidate.name, self._planned(candidate)
        for storage in (None, *formats):
            name = "thin int8" if storage is None else f"thin {storage.format}"
            found = self.thinned(name, self.stored(storage))
            if found is not None:
                yield name, found

    def _planned(self, candidate: Candidate) -> Plan:
        chosen = {"low_rank": candidate.low_rank, "weights": candidate.weights}
        return self.plan.model_copy(update={**chosen, "predicted": candidate.predicted})

    def stored(self, storage: WeightStorage | None) -> dict[str, WeightStorage]:
        """Every layer with weights enough, the first and the last too."""
        network = self.problem.network
        return {
            step.layer: storage
            for step in network.steps
            if storage is not None and step.layer and step.op != "depthwise_conv2d"
            and weight_count(network, step, {}) >= FEWEST_INT4_WEIGHTS
        }  # fmt: skip

    def thinned(self, name: str, weights: dict[str, WeightStorage]) -> Plan | None:
        """The widest that fits as compiled; the table learns from each that does not."""
        groups = prunable_groups(self.trainable)
        ends = {g.name: (min(_LEAST_CHANNELS, g.channels), g.channels) for g in groups}
        choices = Choices(widths=ends, width_damage={name: (1.0, 0.0) for name in ends})
        problem = self.problem
        for _ in range(_ATTEMPTS):
            candidate = uniform(problem, choices, weights)
            if candidate is None:
                return None
            widths = {name: n for name, n in candidate.widths.items() if n < ends[name][1]}
            plan = self.compiled(name, widths=widths, weights=weights)
            if problem.fits_exactly(plan.predicted):
                return plan
            learned = corrections_from(
                candidate.predicted, as_report(plan.predicted), problem.corrections
            )
            problem = replace(problem, corrections=learned)
        return None

    def students(self) -> Iterator[tuple[str, Plan]]:
        """Of each family the one that computes most, within the budget and the model's own MACs."""
        offered = self.offered()
        for family in dict.fromkeys(student.family for student in offered):
            members = [student for student in offered if student.family == family]
            found = self.largest(members)
            if found is not None:
                yield found

    def offered(self) -> list[Student]:
        outputs = output_count(self.trainable)
        if outputs is None:
            return []
        task = Task.of(self.trainable, self.splits).kind
        shape = tuple(self.trainable.example.shape)
        limit = self.problem.macs_limit()
        macs = self.plan.predicted.macs if limit is None else int(limit)
        try:
            return students(shape, outputs, task, macs=min(macs, self.plan.predicted.macs))
        except BadInput:  # no family takes such an input
            return []

    def largest(self, members: Sequence[Student]) -> tuple[str, Plan] | None:
        """The first that fits, in their order; what is around the weights is learnt on the way."""
        caps = [self.problem.budget.flash_bytes, self.problem.profile.flash_bytes]
        flash = min((cap for cap in caps if cap is not None), default=None)
        empty = assemble(
            self.problem.profile, kernels=[], names=[], constant_bytes=0, arena_bytes=0, peak=0,
            macs=0,
        )  # fmt: skip
        around, left = empty.flash_bytes, list(members)
        for attempt in range(_ATTEMPTS):
            if not left:
                return None
            lightest = min(left, key=lambda one: (one.weight_bytes, one.peak_bytes))
            last = attempt == _ATTEMPTS - 1
            student = lightest if last else next(
                (one for one in left if flash is None or one.weight_bytes + around <= flash),
                lightest,
            )  # fmt: skip
            name = f"student {student.name}"
            plan = self.compiled(name, student=student.choice)
            if self.problem.fits_exactly(plan.predicted):
                return name, plan
            if student is lightest:
                return None
            around = max(around, plan.predicted.flash_bytes - student.weight_bytes)
            left.remove(student)
            if plan.predicted.ram_bytes > self.ram_limit():
                left = [one for one in left if one.peak_bytes < student.peak_bytes]
        return None

    def ram_limit(self) -> float:
        caps = (self.problem.budget.ram_bytes, self.problem.profile.ram_bytes)
        return min((cap for cap in caps if cap is not None), default=float("inf"))

    def refusal(self, refused: DoesNotFit) -> DoesNotFit:
        """The search's own words, and the smallest of everything tried after it."""
        tried = ""
        if self.smallest is not None:
            name, predicted = self.smallest
            tried = (
                f" The smallest thing tried, {name}, takes {format_bytes(predicted.flash_bytes)} "
                f"of flash and {format_bytes(predicted.ram_bytes)} of RAM."
            )
        return DoesNotFit(
            refused.message + tried,
            resource=refused.resource,
            needed=refused.needed,
            limit=refused.limit,
            unit=refused.unit,
            next_step=refused.next_step,
        )


def _refuse_impossible(profile: DeviceProfile, budget: Budget) -> None:
    """Raises DoesNotFit for a budget that an image without any model would not meet."""
    empty = assemble(profile, kernels=[], names=[], constant_bytes=0, arena_bytes=0, peak=0, macs=0)
    for resource, needed, limit in (
        ("flash", empty.flash_bytes, budget.flash_bytes),
        ("ram", empty.ram_bytes, budget.ram_bytes),
    ):
        if limit is not None and needed > limit and profile.kind == "mcu":
            shown = "RAM" if resource == "ram" else resource
            raise DoesNotFit(
                f"The runtime alone takes {format_bytes(needed)} of {shown} before there is any "
                f"model; the budget is {format_bytes(limit)}.",
                resource=resource,
                needed=needed,
                limit=limit,
                next_step=f"Raise --{resource} well above {-(-needed // 1024)}K.",
            )
