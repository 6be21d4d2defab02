"""A plan's structural choices, carried out."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from edgecompress.compress.batchnorm import reestimate
from edgecompress.compress.lowrank import Moments, factorize
from edgecompress.compress.prune import prune
from edgecompress.compress.quantize.storage import storage_of_layers
from edgecompress.compress.sparsify import sparsify
from edgecompress.compress.student import student_for
from edgecompress.model.trainable import Trainable
from edgecompress.records import Plan


def apply_plan(
    trainable: Trainable,
    plan: Plan,
    calibration: torch.Tensor,
    *,
    repaired: bool = False,
    moments: Mapping[str, Moments] | None = None,
) -> Trainable:
    """Prune to the plan's widths, factorize what is left, then zero the weights of sparse layers;
    or, where the plan says so, put an untrained student in the model's place.

    In this order because group names and ranks speak of the model's own layers: pruning keeps
    their names, factorization replaces them, and bases are best for the inputs that the pruned
    network really sees. What is zero depends on the weights all of that leaves. BatchNorm is
    re-estimated after each step. Storage other than "sparse" is the business of quantization.

    Fine-tuning keeps the zeros with `sparsify.zero_masks` and `sparsify.hold`, and
    quantization-aware training by itself.

    Args:
        calibration: [N, ...] float32 inputs.
        repaired: least-squares repair of the layers behind pruned channels, see `repair`.
        moments: `observe_all`'s of this model on `calibration`, used where nothing is pruned.

    Raises:
        BadInput: the plan names a group, layer, width, rank or sparsity this model does not have.
    """
    if plan.student is not None:
        return student_for(trainable, plan.student, plan.seed)
    compressed = trainable
    if plan.widths:
        pruned = prune(compressed, plan.widths, calibration=calibration, repaired=repaired)
        compressed = reestimate(pruned, calibration)
    if plan.low_rank:
        known = None if plan.widths else moments
        factorized = factorize(compressed, plan.low_rank, calibration, known)
        compressed = reestimate(factorized, calibration)
    sparsity = {
        layer: storage.sparsity
        for layer, storage in storage_of_layers(compressed.graph, plan.weights).items()
        if storage.format == "sparse"
    }
    if sparsity:
        compressed = reestimate(sparsify(compressed, sparsity), calibration)
    return compressed
