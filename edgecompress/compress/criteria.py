"""How much each channel matters: six published criteria for structured pruning.

    l1          sum of |w| of the filter              Li et al., "Pruning Filters for Efficient
                                                      ConvNets", 2017, section 3.1
    l2          squared norm of the filter            the same, section 4.4
    batchnorm   |gamma| of the BatchNorm behind it    Liu et al., "Learning Efficient Convolutional
                                                      Networks through Network Slimming", 2017, 3
    taylor      |activation x its gradient|           Molchanov et al., "Pruning Convolutional
                                                      Neural Networks for Resource Efficient
                                                      Inference", 2017, section 2.2, eq. 6 to 8
    activation  mean |activation|                     the same, section 2.2, "Activation"
    apoz        share of nonzero activations          Hu et al., "Network Trimming", 2016, section 2

Scores belong to channel labels (see `groups`), so a channel made by several layers has one score.
Activations and gradients are taken where other layers read the channel: setting a channel to zero
there is what removing it means.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import nn

from edgecompress.compress.channels import ChannelMap, filters_of, makes_channels
from edgecompress.compress.layers import input_nodes, kind_of, layer_name, module_of
from edgecompress.errors import BadInput
from edgecompress.model.trainable import Trainable

Criterion = Literal["l1", "l2", "batchnorm", "taylor", "activation", "apoz"]
CRITERIA: tuple[str, ...] = get_args(Criterion)
NEED_DATA = frozenset({"taylor", "activation", "apoz"})

_BATCH = 32


def channel_scores(
    trainable: Trainable,
    channels: ChannelMap,
    criterion: Criterion = "l2",
    calibration: torch.Tensor | None = None,
    labels: torch.Tensor | None = None,
) -> dict[int, float]:
    """Resolved label -> score; larger matters more. A label the criterion cannot judge is absent.

    Args:
        calibration: [N, ...] float32; for "taylor", "activation" and "apoz".
        labels: [N] int64 classes, for "taylor" only. Without them a classifier's own answers
            stand in; a model that does not classify is judged by random projections of its output.

    Raises:
        BadInput: an unknown criterion, or no calibration where it needs some.
    """
    if criterion not in CRITERIA:
        raise BadInput(f"'{criterion}' is not a pruning criterion.",
                       next_step=f"Use one of {', '.join(CRITERIA)}.")  # fmt: skip
    if criterion in ("l1", "l2"):
        return _filter_norms(trainable, channels, 1 if criterion == "l1" else 2)
    if criterion == "batchnorm":
        return _batchnorm_scales(trainable, channels)
    if calibration is None or len(calibration) == 0:
        raise BadInput(
            f"The criterion '{criterion}' looks at activations and needs data.",
            next_step="Give --data, or use l1, l2 or batchnorm.",
        )
    if criterion == "taylor":
        return _taylor(trainable, channels, calibration, labels)
    if criterion == "activation":
        return _mean_magnitudes(trainable, channels, calibration)
    return _nonzero_shares(trainable, channels, calibration)


def _filter_norms(trainable: Trainable, channels: ChannelMap, power: int) -> dict[int, float]:
    """Label -> sum over the filters that make it of sum |w|^power / the layer's mean of that.

    The weights are taken as they are, not as BatchNorm scales them: on the demo network at 70 % of
    every width that kept 87.1 % top-1 before fine-tuning against 75.8 % with scaled ones, and
    against 85.3 % with plain sums.
    """
    norms: dict[int, float] = {}
    seen: set[str] = set()
    for node in trainable.graph.graph.nodes:
        if not makes_channels(node) or layer_name(node) in seen:
            continue
        seen.add(layer_name(node))
        norm = filters_of(module_of(node)).double().abs().pow(power).sum(1)
        _add(norms, channels.of(node), norm / norm.mean().clamp_min(1e-30))
    return norms


def _batchnorm_scales(trainable: Trainable, channels: ChannelMap) -> dict[int, float]:
    """Label -> mean of |gamma| over the BatchNorm layers it passes through."""
    sums: dict[int, float] = {}
    counts: dict[int, float] = {}
    seen: set[str] = set()
    for node in trainable.graph.graph.nodes:
        if node.op != "call_module" or layer_name(node) in seen:
            continue
        norm = module_of(node)
        if not isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) or not norm.affine:
            continue
        seen.add(layer_name(node))
        _add(sums, channels.of(node), norm.weight.detach().double().abs())
        _add(counts, channels.of(node), torch.ones(norm.num_features))
    return {label: total / counts[label] for label, total in sums.items()}


def _taylor(
    trainable: Trainable,
    channels: ChannelMap,
    calibration: torch.Tensor,
    labels: torch.Tensor | None,
) -> dict[int, float]:
    """Label -> mean over the samples of |sum over readers and positions of a dC/da|.

    That is |C(a = 0) - C(a)| to first order, for the cost C of one sample.
    """
    totals = torch.zeros(len(channels.parent), dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for start in range(0, len(calibration), _BATCH):
        reader = _Readers(trainable.graph)
        batch = calibration[start : start + _BATCH]
        output = reader.run(batch)
        known = None if labels is None else labels[start : start + _BATCH]
        classifies = output.dim() == 2 and output.shape[1] > 1
        classifies = classifies and (known is not None or output.shape != batch.shape)
        cost = _cost(output, known, generator if not classifies else None)
        edges = [(node, edge) for node, edge in reader.edges if edge.requires_grad]
        gradients = torch.autograd.grad(cost, [edge for _, edge in edges], allow_unused=True)
        change = torch.zeros(len(output), len(totals), dtype=torch.float64)
        for (node, edge), gradient in zip(edges, gradients, strict=True):
            if gradient is not None:
                own = channels.by_channel(node, (edge * gradient).detach().double()).sum(2)
                change.index_add_(1, _labels_of(channels, node), own)
        totals += change.abs().sum(0)
    return _of_readers(channels, trainable, totals / len(calibration))


def _cost(
    output: torch.Tensor, labels: torch.Tensor | None, generator: torch.Generator | None
) -> torch.Tensor:
    """Summed over the batch: cross entropy of scores [N, classes], or a random projection where
    there is a generator for it.

    Probabilities go through the same formula: the order of channels hardly changes. At the minimum
    of a squared error against the model's own outputs every gradient is zero; a projection of the
    outputs on random signs r has E (r . dy)^2 = |dy|^2 instead.
    """
    if generator is None:
        wanted = output.argmax(1) if labels is None else labels
        return nn.functional.cross_entropy(output, wanted, reduction="sum")
    signs = torch.randint(0, 2, output.shape, generator=generator) * 2.0 - 1.0
    return (output * signs).sum()


def _mean_magnitudes(
    trainable: Trainable, channels: ChannelMap, calibration: torch.Tensor
) -> dict[int, float]:
    """Label -> mean |activation| where layers read it."""
    totals = torch.zeros(len(channels.parent), dtype=torch.float64)
    counts = torch.zeros_like(totals)

    def see(node: torch.fx.Node, value: torch.Tensor) -> None:
        at = _labels_of(channels, node)
        mean = channels.by_channel(node, value.double().abs()).mean(2).sum(0)
        totals.index_add_(0, at, mean)
        counts.index_add_(0, at, torch.full((len(at),), float(len(value))).double())

    with torch.no_grad():
        for batch in calibration.split(_BATCH):
            reader = _Readers(trainable.graph)
            reader.run(batch)
            for node, edge in reader.edges:
                see(node, edge)
    return _of_readers(channels, trainable, totals / counts.clamp_min(1))


def _nonzero_shares(
    trainable: Trainable, channels: ChannelMap, calibration: torch.Tensor
) -> dict[int, float]:
    """Label -> 1 - APoZ: the share of a ReLU's outputs that are not zero."""
    nonzero: dict[int, float] = {}
    counts: dict[int, float] = {}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            value = super().run_node(n)
            if kind_of(n) in ("relu", "relu6"):
                share = channels.by_channel(n, (value > 0).double()).mean(2).sum(0)
                _add(nonzero, channels.of(n), share)
                _add(counts, channels.of(n), torch.full(share.shape, float(len(value))))
            return value

    _in_eval(trainable.graph, lambda: _run_batches(Recorder(trainable.graph), calibration))
    return {label: share / counts[label] for label, share in nonzero.items()}


class _Readers(torch.fx.Interpreter):
    """Runs the graph and keeps what each layer that mixes channels reads.

    Attributes:
        edges: (node that makes the tensor, the tensor on its way into one reader). Every reader
            has an edge of its own, so a gradient tells its share apart from the others'.
    """

    def __init__(self, graph: torch.fx.GraphModule) -> None:
        super().__init__(graph)
        self.edges: list[tuple[torch.fx.Node, torch.Tensor]] = []

    def run(self, *args: Any, **kwargs: Any) -> Any:
        return _in_eval(self.module, lambda: super(_Readers, self).run(*args, **kwargs))

    def run_node(self, n: torch.fx.Node) -> Any:
        if not makes_channels(n):
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        edge = args[0].view_as(args[0])
        self.edges.append((input_nodes(n)[0], edge))
        return self.call_module(n.target, (edge, *args[1:]), kwargs)


def _in_eval(graph: torch.nn.Module, work: Callable[[], Any]) -> Any:
    training = graph.training
    try:
        graph.eval()
        return work()
    finally:
        graph.train(training)


def _run_batches(interpreter: torch.fx.Interpreter, calibration: torch.Tensor) -> None:
    with torch.no_grad():
        for batch in calibration.split(_BATCH):
            interpreter.run(batch)


def _labels_of(channels: ChannelMap, node: torch.fx.Node) -> torch.Tensor:
    return torch.from_numpy(channels.of(node))


def _of_readers(
    channels: ChannelMap, trainable: Trainable, values: torch.Tensor
) -> dict[int, float]:
    """The values of labels that some layer reads."""
    read: set[int] = set()
    for node in trainable.graph.graph.nodes:
        if makes_channels(node):
            read.update(channels.of(input_nodes(node)[0]).tolist())
    return {label: float(values[label]) for label in sorted(read)}


def _add(scores: dict[int, float], labels: np.ndarray, values: torch.Tensor) -> None:
    for label, value in zip(labels.tolist(), values.tolist(), strict=True):
        scores[label] = scores.get(label, 0.0) + value
