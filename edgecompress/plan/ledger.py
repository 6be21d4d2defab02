"""Which stage lost how much: the same measure after each of them, on validation data."""

from __future__ import annotations

import numpy as np
import onnx
import torch

from edgecompress.compress.apply import apply_plan
from edgecompress.model.reference import run_onnx
from edgecompress.model.trainable import Trainable
from edgecompress.plan.rounding import round_weights
from edgecompress.plan.scores import Score, Scorer
from edgecompress.records import Plan, StageScore


def keep_ledger(
    source: Trainable,
    plan: Plan,
    trained: Trainable,
    deployable: onnx.ModelProto,
    scorer: Scorer,
    calibration: torch.Tensor,
) -> tuple[StageScore, ...]:
    """Source, then every stage the plan has, each on top of the ones before.

    Args:
        trained: the plan's model after fine-tuning.
        deployable: that model quantized.
        calibration: what the plan was carried out with.
    """
    found = [_stage("source", scorer.of(source))]
    current = source
    for stage, update in (
        ("prune", {"low_rank": {}, "weights": {}} if plan.widths else None),
        ("factor", {"weights": {}} if plan.low_rank else None),
    ):
        if update is not None:
            current = apply_plan(source, plan.model_copy(update=update), calibration)
            found.append(_stage(stage, scorer.of(current)))
    if plan.student is not None:
        found.append(_stage("student", scorer.of(trained)))
    elif plan.weights:
        rounded = round_weights(apply_plan(source, plan, calibration), plan.weights)
        found.append(_stage("round", scorer.of(rounded)))
    if plan.finetune_steps and len(found) > 1 and plan.student is None:
        found.append(_stage("fine-tune", scorer.of(trained)))
    made = run_onnx(deployable, scorer.held_out.x)
    shape = (len(made), *scorer.teacher.shape[1:])
    outputs = torch.from_numpy(np.asarray(made, np.float32).reshape(shape))
    found.append(_stage("quantize", scorer.of_outputs(outputs)))
    return tuple(found)


def lost(ledger: tuple[StageScore, ...]) -> float | None:
    """What all stages together took off the score (points of accuracy), None without a score."""
    first, last = ledger[0].value, ledger[-1].value
    return None if first is None or last is None else first - last


def _stage(stage, score: Score) -> StageScore:
    return StageScore(stage=stage, value=score.value, divergence=score.divergence)
