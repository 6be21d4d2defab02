"""Trials: one candidate, a few recovery steps, a score. Pure, seeded, addressed by content.

A trial's address is the hash of everything that decides its outcome, so a rerun, a resumed run and
another budget of the same model and data find what is done already.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from edgecompress.compress.apply import apply_plan
from edgecompress.compress.finetune import distill
from edgecompress.model.data import Dataset, Splits
from edgecompress.model.trainable import Trainable
from edgecompress.plan.scores import Score, Scorer
from edgecompress.progress import Progress
from edgecompress.records import Plan, Record

CALIBRATION_SAMPLES = 512
_CHECKED_SAMPLES = 200
"""Validation samples `distill` checks itself on during the short runs that rank candidates."""


class Store(Protocol):
    """Where finished work is kept, by name (`workspace.Checkpoints`)."""

    def load(self, stage: str) -> bytes | None: ...

    def save(self, stage: str, content: bytes) -> None: ...


class MemoryStore:
    """Nothing outlives the process."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def load(self, stage: str) -> bytes | None:
        return self.kept.get(stage)

    def save(self, stage: str, content: bytes) -> None:
        self.kept[stage] = content


class Trial(Record):
    """A candidate as it was judged. `plan.finetune_steps` are the steps it was given."""

    name: str
    plan: Plan
    score: Score

    def file_name(self) -> str:
        return Trial.address(self.plan, self.score.metric)

    @staticmethod
    def address(plan: Plan, metric: str) -> str:
        """Budget, prediction and effort do not change what is trained."""
        chosen = plan.model_dump(mode="json", exclude={"budget", "predicted", "effort", "target"})
        key = _Key(plan=chosen, metric=metric)
        return f"trial-{key.content_hash()[:24]}.json"


class _Key(Record):
    plan: dict
    metric: str


def run_trials(
    trainable: Trainable,
    splits: Splits,
    named: Sequence[tuple[str, Plan]],
    scorer: Scorer,
    store: Store,
    progress: Progress,
) -> list[Trial]:
    """One trial a plan, in order; those found in the store are not trained again."""
    trials = []
    progress.stage("Try candidates", sum(plan.finetune_steps for _, plan in named))
    for name, plan in named:
        address = Trial.address(plan, scorer.metric)
        saved = store.load(address)
        if saved is None:
            score = run_trial(trainable, splits, plan, scorer, progress)
            store.save(address, Trial(name=name, plan=plan, score=score).to_json().encode())
        else:
            score = Trial.from_json(saved).score
            progress.advance(plan.finetune_steps)
        progress.note(f"Candidate '{name}': {score} after {plan.finetune_steps} steps.")
        trials.append(Trial(name=name, plan=plan, score=score))
    return trials


def run_trial(
    trainable: Trainable, splits: Splits, plan: Plan, scorer: Scorer, progress: Progress
) -> Score:
    """Compresses, trains `plan.finetune_steps` steps and scores on the validation split."""
    held_out = splits.validation if len(splits.validation.x) else splits.train
    checked = Dataset(
        held_out.x[:_CHECKED_SAMPLES],
        None if held_out.y is None else held_out.y[:_CHECKED_SAMPLES],
    )
    short = Splits(splits.train, checked, splits.test, splits.hash, splits.name)
    student = apply_plan(trainable, plan, calibration_samples(splits, plan.seed))
    student = distill(
        student, trainable, short, steps=plan.finetune_steps, seed=plan.seed,
        weights=plan.weights, task=scorer.task, progress=progress,
    )  # fmt: skip
    return scorer.of(student)


def calibration_samples(splits: Splits, seed: int) -> torch.Tensor:
    """[N, ...] float32: a seeded choice of training samples, the same for a plan and its replay."""
    x = splits.train.x
    order = np.random.default_rng(seed).permutation(len(x))[:CALIBRATION_SAMPLES]
    return torch.from_numpy(np.ascontiguousarray(x[np.sort(order)]))
