"""Each compression method on its own, as one step: (model, data, options) -> model.

The planner chooses among the same functions with a plan for every layer; here one setting decides
for the whole network.

    prune      structured pruning: fewer channels             prune, criteria, widths, repair
    sparsify   unstructured magnitude pruning: zeros           sparsify
    lowrank    factorization: two to four thinner layers       lowrank
    quantize   int8 or int4 weights, int8 activations          quantize
    share      at most 16 or 4 different weights a layer       share, quantize
    distill    another, smaller model learns the outputs       finetune
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from edgecompress.compress.batchnorm import reestimate
from edgecompress.compress.criteria import NEED_DATA, channel_scores
from edgecompress.compress.finetune import Metric, Recipe, distill
from edgecompress.compress.groups import find_groups, map_channels
from edgecompress.compress.lowrank import choose_ranks, factored_weights, factorize
from edgecompress.compress.method_options import (
    DistillOptions,
    LowRankOptions,
    MethodOptions,
    PruneOptions,
    QuantizeOptions,
    SparsifyOptions,
)
from edgecompress.compress.prune import prune
from edgecompress.compress.quantize import quantize
from edgecompress.compress.quantize.options import QuantizeOptions as PostTraining
from edgecompress.compress.sparsify import (
    Gradual,
    global_sparsity,
    layer_sparsity,
    sparse_layers,
    sparsify,
    zero_masks,
)
from edgecompress.compress.widths import global_widths, uniform_widths
from edgecompress.errors import BadData, BadInput
from edgecompress.model.answers import check_answers
from edgecompress.model.data import Splits
from edgecompress.model.load import load_source
from edgecompress.model.symbols import is_symbol
from edgecompress.model.trainable import Trainable, to_trainable
from edgecompress.progress import SILENT, Progress
from edgecompress.records import WeightStorage

CALIBRATION_SAMPLES = 256
_GRADUAL_SHARE = 0.7
"""Of the fine-tuning, in which zeros appear; the rest recovers."""


@dataclass(frozen=True)
class Change:
    """What became of one layer or group, in words and numbers."""

    layer: str
    before: str
    after: str


@dataclass(frozen=True)
class Compressed:
    """A method's result.

    Attributes:
        trainable: the float model; where there is a deployable, the one it was made from.
        deployable: int8 QDQ ONNX of "quantize" and "share", else None.
        changes: one for each layer or group that is not as it was.
    """

    trainable: Trainable
    deployable: onnx.ModelProto | None
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class _Task:
    """`calibration` is a seeded choice of training inputs with their `labels`, if there are any."""

    trainable: Trainable
    splits: Splits | None
    calibration: torch.Tensor | None
    labels: torch.Tensor | None
    finetune_steps: int
    seed: int
    progress: Progress
    metric: Metric | None = None
    log_folder: Path | None = None

    def needed(self, why: str) -> torch.Tensor:
        if self.calibration is None:
            raise BadInput(f"{why} needs data.", next_step="Give --data.")
        return self.calibration

    def finetuned(
        self,
        student: Trainable,
        hook: Gradual | None = None,
        recipe: Recipe | None = None,
        weights: Mapping[str, WeightStorage] | None = None,
    ) -> Trainable:
        """`student` after the training asked for, with the original as its teacher."""
        if not self.finetune_steps:
            return student
        assert self.splits is not None
        self.progress.stage("Fine-tune", self.finetune_steps)
        return distill(
            student,
            self.trainable,
            self.splits,
            steps=self.finetune_steps,
            seed=self.seed,
            weights=weights,
            recipe=recipe,
            after_step=hook,
            keep_from=0 if hook is None else hook.end,
            metric=self.metric,
            log_folder=self.log_folder,
            progress=self.progress,
        )


def compress(
    trainable: Trainable,
    options: MethodOptions,
    splits: Splits | None = None,
    *,
    name: str = "model",
    finetune_steps: int = 0,
    seed: int = 0,
    metric: Metric | None = None,
    log_folder: Path | None = None,
    progress: Progress = SILENT,
) -> Compressed:
    """Carries out one method; `trainable` is not changed.

    Args:
        options: whose class names the method.
        splits: for calibration and fine-tuning; what needs none may go without.
        name: of a deployable's graph.
        finetune_steps: recovery training against the original, 0 for none.
        metric: selects the state fine-tuning keeps, instead of accuracy.
        log_folder: of the fine-tuning, for TensorBoard.

    Raises:
        BadInput: nothing in the model the method applies to, an option out of range, or no data
            where the method needs some.
    """
    if finetune_steps < 0:
        raise BadInput(f"{finetune_steps} fine-tuning steps are not possible; give 0 or more.")
    if finetune_steps and splits is None:
        raise BadInput("Fine-tuning needs data.", next_step="Give --data.")
    if splits is not None:
        _check_labels(trainable, splits)
    calibration, labels = _calibration(splits, seed)
    task = _Task(
        trainable, splits, calibration, labels, finetune_steps, seed, progress, metric, log_folder
    )
    if isinstance(options, PruneOptions):
        return _prune(task, options)
    if isinstance(options, SparsifyOptions):
        return _sparsify(task, options)
    if isinstance(options, DistillOptions):
        return _distill(task, options)
    if isinstance(options, LowRankOptions):
        return _factorize(task, options)
    if isinstance(options, QuantizeOptions):
        storage = WeightStorage(format="int4") if options.bits == 4 else None
        settings = PostTraining(**options.model_dump(exclude={"bits", "layers"}))
        return _quantize(task, storage, options.layers, name, settings)
    storage = WeightStorage(format="shared16" if options.values == 16 else "shared4")
    return _quantize(task, storage, options.layers, name, PostTraining())


def _check_labels(trainable: Trainable, splits: Splits) -> None:
    shape = _output_shape(trainable)
    check_answers(splits, shape)
    for part in (splits.train, splits.validation, splits.test):
        y = part.classes
        if y is not None and len(y) and len(shape) == 2 and y.max() >= shape[1] > 1:
            raise BadData(
                f"Labels go up to {y.max()}, the model has {shape[1]} outputs (classes 0 to "
                f"{shape[1] - 1}).",
                next_step="Give the data this model was trained for.",
            )


def _calibration(
    splits: Splits | None, seed: int
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    if splits is None:
        return None, None
    train = splits.train
    rows = np.sort(np.random.default_rng(seed).permutation(len(train.x))[:CALIBRATION_SAMPLES])
    labels = None if train.classes is None else torch.from_numpy(train.classes[rows])
    return torch.from_numpy(np.ascontiguousarray(train.x[rows])), labels


def _prune(task: _Task, options: PruneOptions) -> Compressed:
    before, widths = task.trainable, _widths(task, options)
    groups = {group.name: group for group in find_groups(before)}
    narrowed = {name: width for name, width in widths.items() if width < groups[name].channels}
    if not narrowed:
        raise BadInput(
            f"A ratio of {options.ratio:g} in multiples of {options.multiple_of} removes no "
            f"channel of any of the {len(groups)} groups.",
            next_step="Give a larger --ratio or a smaller --multiple-of.",
        )
    after = prune(
        before,
        narrowed,
        criterion=options.criterion,
        calibration=task.calibration,
        labels=task.labels,
        repaired=options.repair,
    )
    changes = tuple(
        Change(" + ".join(groups[name].producers), f"{groups[name].channels} channels", str(width))
        for name, width in narrowed.items()
    )
    return Compressed(task.finetuned(_renormalized(task, after)), None, changes)


def _widths(task: _Task, options: PruneOptions) -> dict[str, int]:
    if options.criterion in NEED_DATA or options.repair:
        task.needed(f"Pruning by '{options.criterion}'" if not options.repair else "Repair")
    if options.scope == "layer":
        return uniform_widths(task.trainable, options.ratio, multiple_of=options.multiple_of)
    scores = channel_scores(
        task.trainable,
        map_channels(task.trainable),
        options.criterion,
        task.calibration,
        task.labels,
    )
    return global_widths(
        task.trainable,
        options.ratio,
        scores,
        normalize=options.criterion != "batchnorm",
        multiple_of=options.multiple_of,
    )


def _renormalized(task: _Task, changed: Trainable) -> Trainable:
    """BatchNorm statistics taken again where there is data to take them on."""
    if task.calibration is None:
        return changed
    if len(task.calibration) < 2:
        raise BadData(
            "The training data holds 1 sample; statistics of BatchNorm need at least 2.",
            next_step="Give some hundred samples, or no data at all.",
        )
    return reestimate(changed, task.calibration)


def _sparsify(task: _Task, options: SparsifyOptions) -> Compressed:
    before = task.trainable
    choose: Callable[[Trainable, float], dict[str, float]]
    choose = layer_sparsity if options.scope == "layer" else global_sparsity
    sparsity = choose(before, options.sparsity)
    after, steps = before, task.finetune_steps
    if options.gradual and not steps:
        raise BadInput("Gradual pruning happens during training.",
                       next_step="Give --finetune-steps as well.")  # fmt: skip
    if not options.gradual:
        after = _renormalized(task, sparsify(before, sparsity))
    if steps:
        end = max(1, round(_GRADUAL_SHARE * steps)) if options.gradual else 0
        hook = Gradual(sparsity, begin=0, end=end, every=max(1, end // 20), kept=zero_masks(after))
        after = task.finetuned(after, hook)
    kept = zero_masks(after)
    changes = tuple(
        Change(layer, f"{mask.numel()} weights", f"{int(mask.sum())} not zero")
        for layer, mask in kept.items()
    )
    return Compressed(after, None, changes)


def _factorize(task: _Task, options: LowRankOptions) -> Compressed:
    before = task.trainable
    method = None if options.factorization == "auto" else options.factorization
    chosen = choose_ranks(
        before,
        options.energy,
        method=method,
        rank=options.rank,
        calibration=task.calibration,
        layers=options.layers or None,
    )
    if not chosen:
        kept = f"an energy of {options.energy:g}" if options.rank is None else f"{options.rank}"
        raise BadInput(
            f"No layer gets smaller by {options.factorization} factorization at "
            f"{'rank ' if options.rank else ''}{kept}.",
            next_step="Give a smaller --energy or --rank.",
        )
    after = _renormalized(task, factorize(before, chosen, task.calibration))
    changes = []
    for layer, choice in chosen.items():
        module = before.graph.get_submodule(layer)
        assert isinstance(module, nn.Conv2d | nn.Linear)
        ranks = " x ".join(map(str, choice.ranks))
        left = factored_weights(module, choice)
        words = f"{left} ({choice.method}, rank {ranks})"
        changes.append(Change(layer, f"{module.weight.numel()} weights", words))
    return Compressed(task.finetuned(after), None, tuple(changes))


def _quantize(
    task: _Task,
    storage: WeightStorage | None,
    named: tuple[str, ...],
    name: str,
    settings: PostTraining,
) -> Compressed:
    calibration = task.needed("Quantization").numpy()
    layers = sparse_layers(task.trainable.graph)
    weights = dict.fromkeys(named or layers, storage) if storage is not None else {}
    if settings == PostTraining():
        tuned = task.finetuned(
            task.trainable, recipe=Recipe(quantization_aware=True), weights=weights
        )
    else:  # what is chosen after training is not known to it
        tuned = task.finetuned(task.trainable)
    made = quantize(tuned, calibration, name=name, weights=weights, options=settings)
    changes = tuple(
        Change(
            layer,
            f"{_weights(tuned, layer)} float weights",
            storage.format if storage is not None and layer in weights else "int8",
        )
        for layer in layers
    )
    return Compressed(tuned, made, changes)


def _distill(task: _Task, options: DistillOptions) -> Compressed:
    if not options.student:
        raise BadInput(
            "Distillation needs a student, the model that is to learn.",
            next_step="Give --student small.onnx or --student pkg.mod:callable.",
        )
    if not task.finetune_steps:
        raise BadInput("Distillation is training.", next_step="Give --finetune-steps, e.g. 1000.")
    shape = tuple(task.trainable.example.shape)
    source = load_source(options.student, input_shape=shape if is_symbol(options.student) else None)
    student = to_trainable(source)
    for what, theirs, ours in (
        ("inputs", student.example.shape, task.trainable.example.shape),
        ("outputs", _output_shape(student), _output_shape(task.trainable)),
    ):
        if tuple(theirs) != tuple(ours):
            raise BadInput(
                f"The student's {what} are {list(theirs)}, those of the model it should learn "
                f"from {list(ours)}.",
                next_step="Give a student for the same data and classes.",
            )
    recipe = Recipe(
        temperature=options.temperature,
        label_share=options.label_share,
        feature_share=options.feature_share,
    )
    tuned = task.finetuned(student, recipe=recipe)
    counts = [sum(value.numel() for value in model.graph.parameters())
              for model in (task.trainable, tuned)]  # fmt: skip
    change = Change(source.name, f"{counts[0]} parameters", f"{counts[1]}")
    return Compressed(tuned, None, (change,))


def _output_shape(trainable: Trainable) -> tuple[int, ...]:
    with torch.no_grad():
        return tuple(trainable.graph(trainable.example).shape)


def _weights(trainable: Trainable, layer: str) -> int:
    module = trainable.graph.get_submodule(layer)
    assert isinstance(module, nn.Conv2d | nn.Linear)
    return module.weight.numel()
