"""The training loop: the compressed student learns the outputs of the model it came from.

float                 train -> best state
quantization-aware    train with rounded weights -> fold BatchNorm, freeze activation scales
                      -> train with everything rounded -> best state, put on its grids
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn

from edgecompress.compress.batchnorm import fold, reestimate
from edgecompress.compress.finetune.batches import Answered, Batches
from edgecompress.compress.finetune.judge import Judge, Score
from edgecompress.compress.finetune.recipe import Recipe
from edgecompress.compress.finetune.task import Loss, Task
from edgecompress.compress.quantize.fake import fake_activations, fake_weights, real_weights
from edgecompress.compress.quantize.prepare import prepare
from edgecompress.compress.quantize.prepared import Quantized, put_on_grids
from edgecompress.compress.quantize.sharing import share_scales
from edgecompress.compress.quantize.storage import storage_of_layers
from edgecompress.errors import EdgeCompressError
from edgecompress.model.data import Splits
from edgecompress.model.trainable import Trainable
from edgecompress.progress import SILENT, Progress
from edgecompress.records import WeightStorage

_WARMUP_SHARE = 0.05
_LARGEST_GRADIENT = 5.0
_CALIBRATION_SAMPLES = 512


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
    progress: Progress = SILENT,
) -> Trainable:
    """Trains a copy of `student` for `steps` batches and returns its best state on validation.

    Adam, short linear warm-up, cosine to zero; the loss is `Task.loss`. The state before training
    and the recipe's `checks` states on the way are compared on at most 2000 validation inputs:
    highest accuracy where there are labels (least loss among equals), else least loss. The result
    is in eval mode. The same seed, data, thread count and machine give the same weights. A GPU is
    used where torch finds one.

    With `weights` (or `recipe.quantization_aware`) training is quantization-aware: weights are
    rounded to their storage from the first step, BatchNorm still learning; for the last part
    BatchNorm is folded, activation scales are calibrated once and activations are rounded too.
    The result is then a `Quantized`, which `quantize` writes number by number as it was trained.

    Args:
        steps: batches; 0 returns a copy (quantized by calibration alone where it is asked for).
        weights: layer -> storage, as `quantize` takes it.
        task: what the model is for; read off the model and its labels by default.
        loss: used instead of the task's own.
        progress: advanced once a step.

    Raises:
        BadData: no training data, NaN or infinity in it, labels of one class only or that the
            model has no output for.
        BadInput: `weights` names no layer.
        EdgeCompressError: the loss stopped being finite.
    """
    recipe = recipe or Recipe()
    aware = bool(weights) or recipe.quantization_aware
    if steps == 0 and not aware:
        return replace(student, graph=copy.deepcopy(student.graph).eval())
    task = task or Task.of(student, splits)
    run = _Run.start(
        teacher, splits, steps, seed, recipe, task, loss or task.loss(recipe), progress
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if aware:
            return _aware(run, student, splits, weights or {})
        graph = copy.deepcopy(student.graph).eval().to(run.device)
        run.train(graph, steps, run.judge.score(graph))
    return replace(student, graph=graph.cpu())


def _aware(
    run: _Run, student: Trainable, splits: Splits, weights: Mapping[str, WeightStorage]
) -> Quantized:
    calibration = splits.train.x[:_CALIBRATION_SAMPLES]
    before = prepare(student, calibration, weights)
    least = run.judge.score(_simulated(before).to(run.device))
    graph = copy.deepcopy(student.graph).eval()
    fake_weights(graph, storage_of_layers(graph, weights))
    run.train(graph.to(run.device), round(run.steps * run.recipe.float_share))
    rounded = reestimate(replace(student, graph=graph.cpu()), torch.from_numpy(calibration))
    real_weights(rounded.graph)
    folded = fold(rounded)
    storage, sharing = storage_of_layers(folded.graph, weights), share_scales(folded.graph)
    activations = prepare(folded, calibration, weights).activations
    graph = copy.deepcopy(folded.graph)
    fake_weights(graph, storage)
    fake_activations(graph, activations)
    found = run.train(graph.to(run.device), run.steps, least)
    if found <= least:
        return before
    grids = real_weights(graph.cpu())
    trained = graph.state_dict()
    folded.graph.load_state_dict({name: trained[name] for name in folded.graph.state_dict()})
    return put_on_grids(folded, sharing, activations, storage, grids=grids)


def _simulated(model: Quantized) -> torch.fx.GraphModule:
    graph = copy.deepcopy(model.graph)
    fake_activations(graph, model.activations)
    return graph.eval()


@dataclass
class _Run:
    """What all parts of one training run share; `step` counts through them."""

    data: Answered
    judge: Judge
    batches: Batches
    task: Task
    loss: Loss
    steps: int
    recipe: Recipe
    progress: Progress
    device: torch.device
    step: int = 0
    stale: int = field(default=0)

    @staticmethod
    def start(
        teacher: Trainable,
        splits: Splits,
        steps: int,
        seed: int,
        recipe: Recipe,
        task: Task,
        loss: Loss,
        progress: Progress,
    ) -> _Run:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return _Run(
            Answered(teacher.graph, splits.train, device),
            Judge(task, loss, splits, teacher.graph, device),
            Batches(len(splits.train.x), min(recipe.batch_size, len(splits.train.x)), seed),
            task,
            loss,
            steps,
            recipe,
            progress,
            device,
        )

    def train(self, graph: torch.fx.GraphModule, until: int, least: Score | None = None) -> Score:
        """Trains in place up to the step `until` and leaves the best state, in eval mode.

        Args:
            least: the score of the state before, where that may be the result too; None for a
                part of a run, whose last state is what counts.
        """
        parameters = [one for one in graph.parameters() if one.requires_grad]
        optimizer = torch.optim.Adam(parameters, lr=self.recipe.learning_rate)
        first, check_every = self.step, max(1, -(-self.steps // self.recipe.checks))
        best_score = least or (-np.inf, -np.inf)
        best_state = copy.deepcopy(graph.state_dict())
        graph.train()
        while self.step < until:
            self.step += 1
            rate = self.recipe.learning_rate * _rate(self.step - 1, self.steps, first)
            for group in optimizer.param_groups:
                group["lr"] = rate
            self._take_step(graph, parameters, optimizer)
            self.progress.advance()
            if least is not None and (self.step % check_every == 0 or self.step == until):
                score = self.judge.score(graph.eval())
                graph.train()
                self.stale += 1
                if score > best_score:
                    best_state, best_score, self.stale = copy.deepcopy(graph.state_dict()), score, 0
                elif self.recipe.patience is not None and self.stale >= self.recipe.patience:
                    break
        if least is not None:
            graph.load_state_dict(best_state)
        graph.eval()
        return best_score

    def _take_step(
        self,
        graph: torch.fx.GraphModule,
        parameters: list[nn.Parameter],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        rows = self.batches.next()
        x = self.data.inputs(rows)
        output = graph(x)
        truth = self.task.truth(x, self.data.labels(rows), output.shape)
        loss = self.loss(output, self.data.targets(rows), truth)
        if not torch.isfinite(loss):
            raise EdgeCompressError(
                f"Fine-tuning diverged: the loss is {loss.item()} at step {self.step}.",
                next_step="Give a smaller learning rate, or check the scale of the training data.",
            )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, _LARGEST_GRADIENT)
        optimizer.step()


def _rate(step: int, steps: int, first: int) -> float:
    """Share of the learning rate: linear warm-up from `first`, on half a cosine down to zero."""
    warmup = max(1, round(steps * _WARMUP_SHARE))
    risen = min(1.0, (step - first + 1) / (warmup + 1))
    return risen * 0.5 * (1 + np.cos(np.pi * max(0, step - warmup) / max(1, steps - warmup)))
