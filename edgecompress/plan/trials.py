"""Trials: one candidate, a few recovery steps, a score. Pure, seeded, addressed by content.

A trial's address is the hash of everything that decides its outcome, the code that trains among
it, so a rerun, a resumed run and another budget of the same model and data find what is done
already, and never what another version of the tool would have trained otherwise.
"""

from __future__ import annotations

import copy
import hashlib
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from edgecompress.compress.apply import apply_plan
from edgecompress.compress.finetune import Answers, Recipe, distill
from edgecompress.errors import BadInput, EdgeCompressError
from edgecompress.model.data import Splits
from edgecompress.model.trainable import Trainable
from edgecompress.plan.scores import Score, Scorer
from edgecompress.progress import SILENT, Progress
from edgecompress.records import Plan, Record

CALIBRATION_SAMPLES = 512
_THREADS = 2
_JUDGED = Recipe(checks=1)
"""The state before and the one after are compared, on as many samples as candidates are."""


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
    """A candidate as it was judged. `plan.finetune_steps` are the steps it was given, `training`
    the `training_version` that trained it."""

    name: str
    plan: Plan
    score: Score
    training: str = ""

    def file_name(self) -> str:
        return Trial.address(self.plan, self.score.metric)

    @staticmethod
    def address(plan: Plan, metric: str) -> str:
        """Budget, prediction and effort do not change what is trained."""
        chosen = plan.model_dump(mode="json", exclude={"budget", "predicted", "effort", "target"})
        if plan.student is None:  # trials older than students keep their names
            del chosen["student"]
        key = _Key(plan=chosen, metric=metric, training=training_version())
        return f"trial-{key.content_hash()[:24]}.json"


class _Key(Record):
    plan: dict
    metric: str
    training: str


@cache
def training_version() -> str:
    """Hash of everything that carries out a plan, trains and judges it: `compress`, `scores` and
    this module as they are installed. No version number that somebody could forget to raise."""
    here = Path(__file__)
    sources = [here, here.with_name("scores.py"), *(here.parents[1] / "compress").rglob("*.py")]
    digest = hashlib.sha256()
    for path in sorted(sources):
        digest.update(path.relative_to(here.parents[1]).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def run_trials(
    trainable: Trainable,
    splits: Splits,
    named: Sequence[tuple[str, Plan]],
    scorer: Scorer,
    store: Store,
    progress: Progress,
    jobs: int = 1,
    ray: str | None = None,
) -> list[Trial]:
    """One trial a plan, in order; those found in the store are not trained again.

    A candidate whose training diverges is left out.

    Args:
        jobs: processes; each gets its share of the threads, so weights differ in the last bits
            from those of another number of jobs.
        ray: address of a Ray cluster to run them on instead, see `ray_trials`.

    Raises:
        EdgeCompressError: every candidate diverged.
    """
    progress.stage("Try candidates", sum(plan.finetune_steps for _, plan in named))
    scores: dict[int, Score | str] = {}
    for at, (_, plan) in enumerate(named):
        saved = store.load(Trial.address(plan, scorer.metric))
        if saved is not None:
            scores[at] = Trial.from_json(saved).score
            progress.advance(plan.finetune_steps)
    todo = [at for at in range(len(named)) if at not in scores]
    plans = [named[at][1] for at in todo]
    if ray is not None and todo:
        from edgecompress.plan.ray_trials import on_ray

        made = on_ray(trainable, splits, plans, scorer, ray, progress)
    elif jobs > 1 and len(todo) > 1:
        shares = min(jobs, len(todo))
        made = enumerate(in_processes(trainable, splits, plans, scorer, shares, progress))
    else:
        answers = Answers(trainable, judged_splits(splits, scorer)) if todo else None
        made = enumerate(
            tried(trainable, splits, plan, scorer, progress, answers) for plan in plans
        )
    for which, score in made:
        at = todo[which]
        name, plan = named[at]
        if isinstance(score, Score):
            trial = _trial(name, plan, score)
            store.save(trial.file_name(), trial.to_json().encode())
        scores[at] = score
    trials = []
    for at, (name, plan) in enumerate(named):
        score = scores[at]
        if isinstance(score, Score):
            progress.note(f"Candidate '{name}': {score} after {plan.finetune_steps} steps.")
            trials.append(_trial(name, plan, score))
        else:
            progress.note(f"Candidate '{name}' is left out. {score}")
    if not trials:
        raise EdgeCompressError(
            f"No candidate could be trained. {scores[0]}",
            next_step="Check the scale of the training data, and that the model's outputs on it "
            "are finite.",
        )
    return trials


def _trial(name: str, plan: Plan, score: Score) -> Trial:
    return Trial(name=name, plan=plan, score=score, training=training_version())


def in_processes(
    trainable: Trainable,
    splits: Splits,
    plans: Sequence[Plan],
    scorer: Scorer,
    jobs: int,
    progress: Progress,
) -> Iterator[Score | str]:
    """The same trials in spawned processes; scores in the plans' order, as they finish."""
    threads = max(1, torch.get_num_threads() // jobs)
    given = (portable(trainable), splits, scorer.user_metric, threads, list(sys.path))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _begin_worker, given) as pool:
        for plan, score in zip(plans, pool.map(_work, plans), strict=True):
            progress.advance(plan.finetune_steps)
            yield score


def portable(trainable: Trainable) -> Trainable:
    """A copy that pickles: fx writes a module's source, where a traced annotation may be a word
    it cannot import."""
    graph = copy.deepcopy(trainable.graph)
    for node in graph.graph.nodes:
        node.type = None
    graph.recompile()
    return replace(trainable, graph=graph)


_worker: tuple[Trainable, Splits, Scorer] | None = None


def _begin_worker(
    trainable: Trainable, splits: Splits, metric: str | None, threads: int, path: list[str]
) -> None:
    global _worker
    sys.path[:] = path
    torch.set_num_threads(threads)
    _worker = (trainable, splits, Scorer.of_source(trainable, splits, metric))


def _work(plan: Plan) -> Score | str:
    assert _worker is not None
    trainable, splits, scorer = _worker
    return tried(trainable, splits, plan, scorer, SILENT)


def tried(
    trainable: Trainable,
    splits: Splits,
    plan: Plan,
    scorer: Scorer,
    progress: Progress,
    answers: Answers | None = None,
) -> Score | str:
    """The score, or in words why training came to nothing; what the user gave wrong is raised."""
    try:
        return run_trial(trainable, splits, plan, scorer, progress, answers)
    except BadInput:
        raise
    except EdgeCompressError as error:
        return error.message


def run_trial(
    trainable: Trainable,
    splits: Splits,
    plan: Plan,
    scorer: Scorer,
    progress: Progress,
    answers: Answers | None = None,
) -> Score:
    """Compresses, trains `plan.finetune_steps` steps and scores on the validation split.

    Args:
        answers: the model's, to the `judged_splits`, where other trials have asked it already.
    """
    student = apply_plan(trainable, plan, calibration_samples(splits, plan.seed))
    student = distill(
        student, trainable, judged_splits(splits, scorer), steps=plan.finetune_steps,
        seed=plan.seed, weights=plan.weights, recipe=_JUDGED, task=scorer.task,
        metric=scorer.selector, answers=answers, progress=progress,
    )  # fmt: skip
    return scorer.of(student)


def limit_threads() -> None:
    """Two at most: the weights depend on how many there are, and small layers gain from no more."""
    torch.set_num_threads(min(_THREADS, torch.get_num_threads()))


def judged_splits(splits: Splits, scorer: Scorer) -> Splits:
    """The splits with no more validation samples than candidates are scored on."""
    return replace(splits, validation=scorer.held_out)


def calibration_samples(splits: Splits, seed: int) -> torch.Tensor:
    """[N, ...] float32: a seeded choice of training samples, the same for a plan and its replay."""
    x = splits.train.x
    order = np.random.default_rng(seed).permutation(len(x))[:CALIBRATION_SAMPLES]
    return torch.from_numpy(np.ascontiguousarray(x[np.sort(order)]))
