"""Distillation: the compressed student learns the outputs of the model it came from.

float                 train -> best state
quantization-aware    train with rounded weights -> fold BatchNorm, freeze activation scales
                      -> train with everything rounded -> best state, put on its grids
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from edgecompress.compress.batchnorm import fold, reestimate
from edgecompress.compress.finetune.batches import Answers, Batches
from edgecompress.compress.finetune.features import Hints
from edgecompress.compress.finetune.judge import Judge, Metric
from edgecompress.compress.finetune.logs import open_log
from edgecompress.compress.finetune.memory_order import usual_order
from edgecompress.compress.finetune.recipe import Recipe
from edgecompress.compress.finetune.session import AfterStep, Session
from edgecompress.compress.finetune.task import Loss, Task
from edgecompress.compress.quantize.fake import fake_activations, fake_weights, real_weights
from edgecompress.compress.quantize.prepare import prepare
from edgecompress.compress.quantize.prepared import Quantized, put_on_grids
from edgecompress.compress.quantize.sharing import share_scales
from edgecompress.compress.quantize.storage import storage_of_layers
from edgecompress.errors import BadInput
from edgecompress.model.data import Splits
from edgecompress.model.trainable import Trainable
from edgecompress.progress import SILENT, Progress
from edgecompress.records import WeightStorage

_CALIBRATION_SAMPLES = 512
_NEVER = (-np.inf, -np.inf)


def distill(
    student: Trainable,
    teacher: Trainable,
    splits: Splits,
    *,
    steps: int,
    seed: int,
    weights: Mapping[str, WeightStorage] | None = None,
    recipe: Recipe | None = None,
    task: Task | None = None,
    loss: Loss | None = None,
    metric: Metric | None = None,
    after_step: AfterStep | None = None,
    keep_from: int = 0,
    log_folder: Path | None = None,
    answers: Answers | None = None,
    progress: Progress = SILENT,
) -> Trainable:
    """Trains a copy of `student` for `steps` batches and returns its best state on validation.

    Adam, short linear warm-up, cosine to zero; the loss is `Task.loss`. The state before training
    and the recipe's `checks` states on the way are compared on at most 2000 validation inputs:
    highest accuracy where there are labels (least loss within a standard error of it, see
    `Judge.better`), else least loss. The result is in eval mode. The same seed, data, thread count
    and machine give the same weights. A GPU is used where torch finds one.

    With `weights` (or `recipe.quantization_aware`) training is quantization-aware: weights are
    rounded to their storage from the first step, BatchNorm still learning; for the last part
    BatchNorm is folded, activation scales are calibrated once and activations are rounded too.
    The result is then a `Quantized`, which `quantize` writes number by number as it was trained.

    Args:
        steps: batches; 0 returns a copy (quantized by calibration alone where it is asked for).
        weights: layer -> storage, as `quantize` takes it.
        task: what the model is for; read off the model and its labels by default.
        loss: used instead of the task's own.
        metric: selects the state kept instead of accuracy; larger is better.
        after_step: called after every optimizer step, to hold weights at zero for example.
            Not with quantization-aware training, which holds the zeros of sparse layers itself.
        keep_from: states before this step (and the one before training) are not kept, because
            the hook has not finished with them.
        log_folder: losses, learning rate and validation scores for TensorBoard.
        answers: of this teacher to these splits, where other students have asked it already.
        progress: advanced once a step.

    Raises:
        BadData: no training data, NaN or infinity in it, labels of one class only or that the
            model has no output for.
        BadInput: `weights` names no layer; a hook beside quantization-aware training.
        BadConfig: `log_folder` without the package tensorboard.
        EdgeCompressError: the loss stopped being finite.
    """
    recipe = recipe or Recipe()
    aware = bool(weights) or recipe.quantization_aware
    if aware and after_step is not None:
        raise BadInput("A hook cannot change weights that training rounds; train without storage.")
    if steps == 0 and not aware:
        return replace(student, graph=copy.deepcopy(student.graph).eval())
    task = task or Task.of(student, splits)
    with torch.random.fork_rng(devices=[]), contextlib.closing(open_log(log_folder)) as log:
        torch.manual_seed(seed)
        answers = answers or Answers(teacher, splits)
        loss = loss or task.loss(recipe)
        run = Session(
            data=answers.train,
            judge=Judge(task, loss, answers.held_out, metric),
            batches=Batches(len(splits.train.x), recipe.batch_size, seed),
            task=task,
            loss=loss,
            steps=steps,
            recipe=recipe,
            progress=progress,
            device=answers.device,
            log=log,
            hints=Hints(student, teacher, answers.device) if recipe.feature_share > 0 else None,
            after_step=after_step,
            keep_from=min(keep_from, steps),
        )
        if aware:
            return _aware(run, student, splits, weights or {}, seed)
        graph = copy.deepcopy(student.graph).eval().to(run.device)
        run.learning_rate = recipe.rate_for(run.judge.disagreement(graph))
        run.train(graph, steps, _NEVER if keep_from else run.judge.score(graph))
    return replace(student, graph=_ordinary(graph))


def _aware(
    run: Session,
    student: Trainable,
    splits: Splits,
    weights: Mapping[str, WeightStorage],
    seed: int,
) -> Quantized:
    # Data may be sorted by class; a choice over all of it is not.
    order = np.random.default_rng(seed).permutation(len(splits.train.x))[:_CALIBRATION_SAMPLES]
    calibration = splits.train.x[np.sort(order)]
    before = prepare(student, calibration, weights)
    rounded = _simulated(before).to(run.device)
    least = run.judge.score(rounded)
    run.learning_rate = run.recipe.rate_for(run.judge.disagreement(rounded))
    graph = copy.deepcopy(student.graph).eval()
    fake_weights(graph, storage_of_layers(graph, weights))
    # At least one step sees everything rounded: only such states are compared.
    run.train(graph, max(0, min(round(run.steps * run.recipe.float_share), run.steps - 1)))
    trained = reestimate(replace(student, graph=_ordinary(graph)), torch.from_numpy(calibration))
    real_weights(trained.graph)
    folded = fold(trained)
    storage, sharing = storage_of_layers(folded.graph, weights), share_scales(folded.graph)
    activations = prepare(folded, calibration, weights).activations
    graph = copy.deepcopy(folded.graph)
    fake_weights(graph, storage)
    fake_activations(graph, activations)
    if run.train(graph, run.steps, least) == least:
        return before
    graph = _ordinary(graph)
    grids = real_weights(graph)
    state = graph.state_dict()
    folded.graph.load_state_dict({name: state[name] for name in folded.graph.state_dict()})
    return put_on_grids(folded, sharing, activations, storage, grids=grids)


def _ordinary(graph: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """Back on the CPU and in the usual memory order, in eval mode."""
    plain = graph.cpu().eval()
    usual_order(plain)
    return plain


def _simulated(model: Quantized) -> torch.fx.GraphModule:
    graph = copy.deepcopy(model.graph)
    fake_activations(graph, model.activations)
    return graph.eval()
