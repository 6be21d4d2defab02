"""Steps of training: one run of them, which several phases may share."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from edgecompress.compress.finetune.augment import augmented, augments
from edgecompress.compress.finetune.batches import Answered, Batches
from edgecompress.compress.finetune.features import Hints, tapped
from edgecompress.compress.finetune.judge import Judge, Score
from edgecompress.compress.finetune.logs import Log
from edgecompress.compress.finetune.memory_order import channels_last
from edgecompress.compress.finetune.recipe import Recipe
from edgecompress.compress.finetune.task import Loss, Task
from edgecompress.errors import EdgeCompressError
from edgecompress.progress import Progress

_WARMUP_SHARE = 0.05
_LARGEST_GRADIENT = 5.0
_LOG_EVERY = 10

AfterStep = Callable[[torch.fx.GraphModule, int], None]
"""Called with the graph and the number of the step just taken, counted from 1."""


@dataclass
class Session:
    """What all phases of one run share; `step` counts through them.

    Attributes:
        steps: of the whole run; the learning rate falls to zero over them.
        learning_rate: what it falls from.
        hints: of feature distillation, where it is asked for.
        after_step: the caller's hook, see `distill`.
        keep_from: states before this step are not kept.
        stale: checks since the best state.
    """

    data: Answered
    judge: Judge
    batches: Batches
    task: Task
    loss: Loss
    steps: int
    recipe: Recipe
    progress: Progress
    device: torch.device
    log: Log
    learning_rate: float = 1e-3
    hints: Hints | None = None
    after_step: AfterStep | None = None
    keep_from: int = 0
    step: int = 0
    stale: int = 0

    def train(self, graph: torch.fx.GraphModule, until: int, least: Score | None = None) -> Score:
        """Trains in place up to the step `until` and leaves the best state, in eval mode.

        Args:
            least: the score of the state before, where that may be the result too; None for a
                phase whose last state is what counts.

        Returns:
            The score of the state left; minus infinity after a phase that compares none.
        """
        graph = graph.to(self.device)
        channels_last(graph)
        parameters = [one for one in graph.parameters() if one.requires_grad]
        if self.hints is not None:
            parameters += self.hints.projections.parameters()
        optimizer = torch.optim.Adam(parameters, lr=self.learning_rate, fused=True)
        shown = graph if self.hints is None else tapped(graph, self.hints.names)
        first, check_every = self.step, max(1, -(-self.steps // self.recipe.checks))
        best = least if least is not None else (-np.inf, -np.inf)
        best_state, highest = copy.deepcopy(graph.state_dict()), best[0]
        graph.train()
        while self.step < until:
            self.step += 1
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate * _rate(self.step - 1, self.steps, first)
            self._take_step(shown, parameters, optimizer)
            if self.after_step is not None:
                self.after_step(graph, self.step)
            self.progress.advance()
            due = self.step % check_every == 0 or self.step == until
            if least is None or not due or self.step < self.keep_from:
                continue
            score = self._checked(graph)
            self.stale += 1
            highest = max(highest, score[0])
            if self.judge.better(score, best, highest):
                best_state, best, self.stale = copy.deepcopy(graph.state_dict()), score, 0
            elif self.recipe.patience is not None and self.stale >= self.recipe.patience:
                break
        if least is not None:
            graph.load_state_dict(best_state)
        graph.eval()
        return best

    def _checked(self, graph: torch.fx.GraphModule) -> Score:
        score = self.judge.score(graph.eval())
        graph.train()
        self.log.scalar("validation/loss", -score[1], self.step)
        if self.judge.has_labels:
            self.log.scalar("validation/score", score[0], self.step)
        return score

    def _take_step(
        self,
        graph: torch.fx.GraphModule,
        parameters: list[nn.Parameter],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        rows = self.batches.next()
        x = self.data.inputs(rows)
        changed = augments(self.recipe, x)
        if changed:
            x = augmented(x, self.recipe)
        target = self.data.taught(x) if changed else self.data.targets(rows)
        made = graph(x)
        output, features = made if self.hints is not None else (made, ())
        truth = self.task.truth(x, self.data.labels(rows), output.shape)
        loss = self.loss(output, target, truth)
        if self.hints is not None:
            loss = loss + self.recipe.feature_share * self.hints.loss(x, features)
        value = loss.item()
        if not np.isfinite(value):
            raise EdgeCompressError(
                f"Fine-tuning diverged: the loss is {value} at step {self.step}.",
                next_step="Give a smaller learning rate, or check the scale of the training data.",
            )
        if self.step % _LOG_EVERY == 1:
            self.log.scalar("training/loss", value, self.step)
            self.log.scalar("training/learning_rate", optimizer.param_groups[0]["lr"], self.step)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, _LARGEST_GRADIENT)
        optimizer.step()


def _rate(step: int, steps: int, first: int) -> float:
    """Share of the learning rate: linear warm-up from `first`, on half a cosine down to zero."""
    warmup = max(1, round(steps * _WARMUP_SHARE))
    risen = min(1.0, (step - first + 1) / (warmup + 1))
    return risen * 0.5 * (1 + np.cos(np.pi * max(0, step - warmup) / max(1, steps - warmup)))
