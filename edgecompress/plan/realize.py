"""A plan carried out in full: what `fit` deploys, and what replaying a plan.json gives again."""

from __future__ import annotations

from pathlib import Path

from edgecompress.compress.apply import apply_plan
from edgecompress.compress.finetune import distill, user_metric
from edgecompress.model.data import Splits
from edgecompress.model.trainable import Trainable
from edgecompress.plan.trials import calibration_samples, limit_threads
from edgecompress.progress import SILENT, Progress
from edgecompress.records import Plan


def realize(
    trainable: Trainable,
    plan: Plan,
    splits: Splits,
    progress: Progress = SILENT,
    metric: str | None = None,
    log_folder: Path | None = None,
) -> Trainable:
    """The plan's model: compressed, its BatchNorm re-estimated, fine-tuned against the original.

    Args:
        metric: "pkg.mod:callable" that selects within the training; `log_folder`: TensorBoard's.

    Raises:
        BadInput: the plan names groups or layers this model does not have, or a bad metric.
    """
    limit_threads()
    if not plan.widths and not plan.low_rank and not plan.weights and plan.student is None:
        return trainable
    compressed = apply_plan(trainable, plan, calibration_samples(splits, plan.seed))
    if plan.finetune_steps == 0:
        return compressed
    progress.stage("Fine-tune", plan.finetune_steps)
    return distill(
        compressed, trainable, splits, steps=plan.finetune_steps, seed=plan.seed,
        weights=plan.weights, metric=None if metric is None else user_metric(metric),
        log_folder=log_folder, progress=progress,
    )  # fmt: skip
