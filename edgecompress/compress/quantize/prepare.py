"""What post-training quantization decides, as one list.

fold BatchNorm -> equalize -> activation scales -> weights on their grids -> reconstruct
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edgecompress.compress.batchnorm import fold
from edgecompress.compress.quantize.equalize import equalize
from edgecompress.compress.quantize.observe import observe
from edgecompress.compress.quantize.options import QuantizeOptions
from edgecompress.compress.quantize.prepared import Quantized, checked, put_on_grids
from edgecompress.compress.quantize.reconstruct import reconstruct
from edgecompress.compress.quantize.sharing import share_scales
from edgecompress.compress.quantize.storage import storage_of_layers
from edgecompress.errors import BadData
from edgecompress.model.trainable import Trainable
from edgecompress.records import WeightStorage


def prepare(
    trainable: Trainable,
    calibration: np.ndarray,
    weights: Mapping[str, WeightStorage],
    options: QuantizeOptions | None = None,
) -> Quantized:
    """Everything `quantize` decides, before it is written; see there."""
    if isinstance(trainable, Quantized):
        return checked(trainable, storage_of_layers(trainable.graph, weights))
    _check_calibration(trainable, calibration)
    options = options or QuantizeOptions()
    folded = fold(trainable)
    if options.equalize:
        folded = equalize(folded)
    storage = storage_of_layers(folded.graph, weights)
    sharing = share_scales(folded.graph)
    found = observe(folded.graph, sharing, calibration, options)
    activations = {node.name: affine for node, affine in found.items()}
    original = replace(folded, graph=copy.deepcopy(folded.graph))
    made = put_on_grids(folded, sharing, activations, storage, per_channel=options.per_channel)
    if options.rounding == "nearest" and not options.correct_bias:
        return made
    return reconstruct(made, original, calibration, options)


def _check_calibration(trainable: Trainable, calibration: np.ndarray) -> None:
    wanted = tuple(trainable.example.shape[1:])
    if len(calibration) == 0:
        raise BadData("Calibration data is empty.", next_step="Give at least one input.")
    if tuple(calibration.shape[1:]) != wanted:
        given = list(calibration.shape[1:])
        raise BadData(f"Calibration inputs are {given}, the model takes {list(wanted)}.")
    if not np.isfinite(calibration).all():
        count = int((~np.isfinite(calibration)).sum())
        raise BadData(f"Calibration data has {count} values that are NaN or infinite.")
