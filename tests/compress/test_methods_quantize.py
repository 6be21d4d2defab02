"""Fine-tuning inside `compress --method quantize` and `share` trains for the rounding."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper
from small_networks import Residual, seeded, stripes

from edgecompress.compress.method_options import QuantizeOptions, ShareOptions
from edgecompress.compress.methods import compress
from edgecompress.compress.quantize.prepared import Quantized
from edgecompress.model.data import Splits

SPLITS = Splits(stripes(120, 0), stripes(40, 1), stripes(40, 2), "", "stripes")


@pytest.mark.parametrize("options", [QuantizeOptions(bits=4), ShareOptions(values=4)])
def test_steps_are_quantization_aware(options: QuantizeOptions | ShareOptions) -> None:
    made = compress(seeded(Residual), options, SPLITS, finetune_steps=6)
    assert isinstance(made.trainable, Quantized)
    assert made.deployable is not None
    weights = {one.name: numpy_helper.to_array(one) for one in made.deployable.graph.initializer}
    stored = weights["conv3.weight_quantized"]
    if isinstance(options, QuantizeOptions):
        assert np.abs(stored).max() <= 7
    else:
        assert len(np.unique(stored)) <= 4


def test_settings_chosen_after_training_are_kept() -> None:
    options = QuantizeOptions(symmetric_activations=True)
    made = compress(seeded(Residual), options, SPLITS, finetune_steps=2)
    assert made.deployable is not None
    points = [
        numpy_helper.to_array(one)
        for one in made.deployable.graph.initializer
        if one.name.endswith("zero_point")
    ]
    assert not any(one.any() for one in points)
