"""The search: nothing when int8 alone fits, else a few candidates, briefly trained, and the best.

    compile -> fits? empty plan
    groups -> measured damage -> candidates that fit as compiled -> a few steps -> validation
    the best becomes the Plan; `plan.realize` makes it again from the source and trains it fully

Every decision depends on the seed, the model and the data, never on the clock, so the same call
gives the same Plan and the same Plan the same weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch

from edgecompress.compress.apply import apply_plan
from edgecompress.compress.groups import ChannelGroup
from edgecompress.compress.lowrank import Moments, observe_all
from edgecompress.model.data import Splits
from edgecompress.model.trainable import Trainable
from edgecompress.plan.account import Account, as_report
from edgecompress.plan.candidates import NAMES, UNMEASURED, Candidate, Problem, narrowest, propose
from edgecompress.plan.choices import Choices
from edgecompress.plan.cost import Corrections, corrections_from, evaluate
from edgecompress.plan.explain import explain_infeasible, realised_too_large
from edgecompress.plan.formats import encoded_formats
from edgecompress.plan.front import same_choice
from edgecompress.plan.latency import time_correction
from edgecompress.plan.low_rank import LOW_RANK, low_rank_candidates
from edgecompress.plan.made import Made, proposed_alone
from edgecompress.plan.network import Network, prunable_groups, read_network
from edgecompress.plan.schedule import Effort, schedule_of
from edgecompress.plan.scores import Scorer, best_of
from edgecompress.plan.sensitivity import measure, unmeasured
from edgecompress.plan.trials import (
    MemoryStore,
    Store,
    Trial,
    calibration_samples,
    limit_threads,
    run_trials,
    training_version,
)
from edgecompress.progress import SILENT, Progress
from edgecompress.records import (
    Budget,
    Optimize,
    Plan,
    Prediction,
    Record,
    Sensitivity,
    WeightStorage,
)
from edgecompress.target.schema import DeviceProfile
from edgecompress.units import format_bytes

_PROPOSAL_ROUNDS = 4
_REPAIRS = 3
_NAMED_SENSITIVE = 8


class Found(Record):
    """What a search leaves: the chosen plan, every trial it was chosen from, and why.

    `objective` says what was selected by; `sensitivity` the dearest single changes.
    """

    plan: Plan
    trials: tuple[Trial, ...] = ()
    objective: str = ""
    sensitivity: tuple[Sensitivity, ...] = ()


def search(
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
    earlier: Sequence[Trial] = (),
    jobs: int = 1,
    ray: str | None = None,
    names: Sequence[str] = NAMES,
) -> Found:
    """The plan with the best validation score among those predicted to fit.

    Args:
        corrections: `cost.corrections_from` an image already linked, where there is one.
        optimize: what the image's kernels will be chosen for.
        metric: "pkg.mod:callable" to select by, in place of accuracy.
        store: where finished measurements and trials are looked for and kept.
        earlier: trials of the same model and data under other budgets; those that fit compete.
        jobs: trials at once, each in a process of its own.
        ray: address of a Ray cluster for the trials instead.
        names: the candidates to consider, see `candidates`.

    Raises:
        DoesNotFit: no plan fits; says which budget, by how much, where, and the cheapest way out.
    """
    limit_threads()
    groups = prunable_groups(trainable)
    network = read_network(trainable, groups)
    account = Account(profile, budget, splits.train.x, corrections or {}, optimize)
    whole = account.of(trainable)
    table = corrections_from(
        evaluate(network, profile), as_report(whole), time_correction(corrections)
    )
    problem = Problem(network, profile, budget, table)
    calibration = calibration_samples(splits, seed)
    empty = Plan(
        model_hash=model_hash, data_hash=splits.hash, target=profile.name, budget=budget,
        seed=seed, effort=effort, calibration_samples=len(calibration), predicted=whole,
    )  # fmt: skip
    if problem.fits_exactly(whole):
        progress.note("int8 alone fits: nothing is pruned or factorized.")
        return Found(plan=empty)
    searched = _Search(
        trainable, splits, groups, problem, account, empty, calibration,
        Scorer.of_source(trainable, splits, metric), store or MemoryStore(), progress, jobs, ray,
    )  # fmt: skip
    return searched.run(names, earlier)


@dataclass(frozen=True)
class _Search:
    """One search once it is known that something must be done; `plan` is the empty one."""

    trainable: Trainable
    splits: Splits
    groups: list[ChannelGroup]
    problem: Problem
    account: Account
    plan: Plan
    calibration: torch.Tensor
    scorer: Scorer
    store: Store
    progress: Progress
    jobs: int
    ray: str | None

    def run(self, names: Sequence[str], earlier: Sequence[Trial]) -> Found:
        schedule = schedule_of(self.plan.effort, self.plan.predicted.macs)
        choices = self.measured(names)
        problem, candidates = self.compiled(choices, names, schedule.candidates)
        network = problem.network
        if LOW_RANK in names:
            self.progress.stage("Compile low rank", 1)
            whole = self.plan.predicted
            moments = observe_all(self.trainable, self.calibration)
            factorized = low_rank_candidates(
                self.trainable, moments, problem, whole,
                encoded_formats(problem.profile), lambda item: self.exact(item, network, moments),
            )  # fmt: skip
            candidates += islice(factorized, 2 if problem.compute_binds(whole) else 1)
        named = [
            (item.name, _with(self.plan, item, network, schedule.judge_steps))
            for item in candidates
        ]
        known = [
            trial
            for trial in earlier
            if self.competes(trial) and not any(same_choice(trial.plan, p) for _, p in named)
        ]
        if len(named) + len(known) > 1:
            trials = run_trials(
                self.trainable, self.splits, named, self.scorer, self.store, self.progress,
                self.jobs, self.ray,
            ) + known  # fmt: skip
            made = [trial.plan.predicted for trial in trials]
            sizes = self.problem.sizes_where_compute_binds(self.plan.predicted, made)
            best = trials[best_of([t.score for t in trials], len(self.scorer.held_out), sizes)]
            name, chosen = best.name, best.plan
        else:
            trials, (name, chosen) = [], named[0]
        predicted = chosen.predicted
        self.progress.note(
            f"Chosen: {name}, predicted {format_bytes(predicted.flash_bytes)} of flash and "
            f"{format_bytes(predicted.ram_bytes)} of RAM."
        )
        final = {
            "finetune_steps": schedule.final_steps,
            "budget": self.plan.budget,
            "effort": self.plan.effort,
        }
        return Found(
            plan=chosen.model_copy(update=final),
            trials=tuple(trials),
            objective=self.scorer.objective,
            sensitivity=choices.most_sensitive(_NAMED_SENSITIVE),
        )

    def measured(self, names: Sequence[str]) -> Choices:
        """What every change costs, from the store where this model and data were measured."""
        formats = encoded_formats(self.problem.profile)
        if set(names) <= set(UNMEASURED):
            return unmeasured(self.groups, formats)
        key = _MeasureKey(
            model_hash=self.plan.model_hash,
            data_hash=self.plan.data_hash,
            seed=self.plan.seed,
            formats=formats,
        )
        address = f"sensitivity-{key.content_hash()[:24]}.json"
        saved = self.store.load(address)
        if saved is not None:
            self.progress.note("Sensitivities were already measured.")
            return Choices.from_json(saved)
        choices = measure(
            self.trainable, self.problem.network, self.groups, self.calibration, self.progress,
            formats,
        )  # fmt: skip
        self.store.save(address, choices.to_json().encode())
        return choices

    def competes(self, trial: Trial) -> bool:
        """Whether an earlier trial is of this very task and fits as it was compiled."""
        ours, theirs = self.plan, trial.plan
        same = (ours.model_hash, ours.data_hash, ours.target, ours.seed, self.scorer.metric) == (
            theirs.model_hash, theirs.data_hash, theirs.target, theirs.seed, trial.score.metric,
        )  # fmt: skip
        trained_alike = trial.training == training_version()
        return same and trained_alike and self.problem.fits_exactly(theirs.predicted)

    def compiled(
        self, choices: Choices, names: Sequence[str], most: int
    ) -> tuple[Problem, list[Candidate]]:
        """Candidates that fit as compiled. While none does, the table learns from what came out.

        Raises:
            DoesNotFit: nothing fits; says which budget, by how much, where, and the way out.
        """
        problem, exact = self.problem, self.plan.predicted
        for _ in range(_PROPOSAL_ROUNDS):
            proposed = propose(problem, choices, names)
            candidates = proposed or [narrowest(problem, choices)]
            tried: list[Made] = []
            fitting: list[Candidate] = []
            self.progress.stage("Compile candidates", min(most, len(candidates)))
            for made in self.each_made(candidates, problem, choices):
                tried.append(made)
                found = replace(made.candidate, predicted=made.exact)
                if made.fits and not any(found.same_as(other) for other in fitting):
                    fitting.append(found)
                if len(fitting) == most:
                    break
            if fitting:
                return tried[-1].for_the_next(problem), fitting
            problem, exact = tried[-1].learned(), tried[-1].exact
            if not proposed:
                raise explain_infeasible(problem, choices)
        raise realised_too_large(exact, problem)

    def each_made(
        self, candidates: Sequence[Candidate], problem: Problem, choices: Choices
    ) -> Iterator[Made]:
        """One candidate after the other, told what those before it have shown of decoding."""
        proposed_for = problem
        for candidate in candidates:
            again = None
            if problem is not proposed_for and candidate.predicted.decoding_instructions:
                again = proposed_alone(problem, choices, candidate.name)
            made = self.made_to_fit(again or candidate, problem, choices)
            self.progress.advance()
            yield made
            problem = made.for_the_next(problem)

    def made_to_fit(self, candidate: Candidate, problem: Problem, choices: Choices) -> Made:
        """The candidate as it compiles.

        One that comes out too large is proposed again with what its own code has shown: the table
        cannot know which routines a mixture of storages brings along.
        """
        made = Made(candidate, problem, self.exact(candidate, problem.network))
        for _ in range(_REPAIRS):
            if made.fits or candidate.name not in NAMES:
                break
            learned = made.learned()
            again = proposed_alone(learned, choices, candidate.name)
            if again is None:
                break
            made = Made(again, learned, self.exact(again, learned.network))
        return made

    def exact(
        self,
        candidate: Candidate,
        network: Network,
        moments: Mapping[str, Moments] | None = None,
    ) -> Prediction:
        plan = _with(self.plan, candidate, network, 0)
        student = apply_plan(self.trainable, plan, self.calibration, moments=moments)
        return self.account.of(student, candidate.weights)


class _MeasureKey(Record):
    model_hash: str
    data_hash: str
    seed: int
    formats: tuple[WeightStorage, ...]


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
