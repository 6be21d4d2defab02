"""A plan's structural choices, carried out."""

from __future__ import annotations

import torch

from edgecompress.compress.batchnorm import reestimate
from edgecompress.compress.lowrank import factorize
from edgecompress.compress.prune import prune
from edgecompress.model.trainable import Trainable
from edgecompress.records import Plan


def apply_plan(trainable: Trainable, plan: Plan, calibration: torch.Tensor) -> Trainable:
    """Prune to the plan's widths, factorize what is left, take BatchNorm statistics again.

    In this order because group names and ranks speak of the model's own layers: pruning keeps
    their names, factorization replaces them, and bases are best for the inputs that the pruned
    network really sees (so BatchNorm is re-estimated before it as well).

    Args:
        calibration: [N, ...] float32 inputs.

    Raises:
        BadInput: the plan names a group, layer, width or rank this model does not have.
    """
    compressed = trainable
    if plan.widths:
        compressed = reestimate(prune(compressed, plan.widths), calibration)
    if plan.low_rank:
        compressed = reestimate(factorize(compressed, plan.low_rank, calibration), calibration)
    return compressed
