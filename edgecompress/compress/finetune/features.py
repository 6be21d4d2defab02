"""Feature distillation: the student's maps, brought to the teacher's width, follow the teacher's.

Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, section 2.2: a regressor on top of
the student's hint layer (here a 1x1 convolution or a dense layer, trained along and thrown away)
predicts the teacher's features; its squared error is added to the loss.

    teacher  [N, 64, 7, 7]  <-- squared error -->  project [N, 64, 7, 7] <- student [N, 24, 7, 7]

One pair is taken for every map size both networks have, the last of its size in each: so a
pruned network and one of another family are matched by the same rule.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import fx, nn

from edgecompress.compress.layers import kind_of
from edgecompress.errors import BadInput
from edgecompress.model.trainable import Trainable

_TAPPED = frozenset(
    {"relu", "relu6", "add", "cat", "maxpool", "avgpool", "gelu", "layernorm", "recurrent"}
)

Names = tuple[str, ...]


class Hints:
    """The pairs of one student and its teacher."""

    def __init__(self, student: Trainable, teacher: Trainable, device: torch.device) -> None:
        """
        Raises:
            BadInput: no map of the same size in both networks.
        """
        ours, theirs = _last_of_each_size(student), _last_of_each_size(teacher)
        common = [size for size in ours if size in theirs]
        if not common:
            raise BadInput(
                "Feature distillation needs a map of the same size in both networks; the student "
                f"has {_shown(ours)}, the teacher {_shown(theirs)}.",
                next_step="Distil the logits alone.",
            )
        self.names: Names = tuple(ours[size][0] for size in common)
        projections = [_projection(size, ours[size][1], theirs[size][1]) for size in common]
        self.projections = nn.ModuleList(projections).to(device)
        taught = tuple(theirs[size][0] for size in common)
        self._teacher = tapped(copy.deepcopy(teacher.graph).eval().to(device), taught)

    def loss(self, x: torch.Tensor, features: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Scalar: squared error relative to the teacher's variance, mean over the pairs.

        Args:
            features: the student's, as `tapped` with `names` returns them for x.
        """
        with torch.no_grad():
            _, targets = self._teacher(x)
        errors = [
            nn.functional.mse_loss(project(mine), theirs) / theirs.var().clamp_min(1e-8)
            for project, mine, theirs in zip(self.projections, features, targets, strict=True)
        ]
        return torch.stack(errors).mean()


def tapped(graph: fx.GraphModule, names: Names) -> fx.GraphModule:
    """The same modules, returning (output, (the outputs of the named nodes, ...))."""
    taps = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    result = taps.graph_copy(graph.graph, copies)
    by_name = {node.name: made for node, made in copies.items()}
    taps.output((result, tuple(by_name[name] for name in names)))
    return fx.GraphModule(graph, taps)


def _last_of_each_size(trainable: Trainable) -> dict[tuple[int, ...], tuple[str, int]]:
    """Map size -> (last node of it, channels), in execution order of the last.

    [N, C, H, W] has size (H, W), [N, time, C] has size (time,) and [N, C] has ().
    """
    found: dict[tuple[int, ...], tuple[str, int]] = {}

    class Shapes(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n.op.startswith("call") and kind_of(n) in _TAPPED:
                is_map = value.dim() == 4
                size = tuple(value.shape[2:] if is_map else value.shape[1:-1])
                found.pop(size, None)
                found[size] = (n.name, value.shape[1 if is_map else -1])
            return value

    with torch.no_grad():
        Shapes(copy.deepcopy(trainable.graph).eval()).run(trainable.example)
    return found


def _projection(size: tuple[int, ...], channels_in: int, channels_out: int) -> nn.Module:
    return (
        nn.Conv2d(channels_in, channels_out, 1)
        if len(size) == 2
        else nn.Linear(channels_in, channels_out)
    )


def _shown(found: dict[tuple[int, ...], tuple[str, int]]) -> str:
    return ", ".join(" x ".join(map(str, size)) or "vectors" for size in found) or "none"
