"""The bundled example: a ResNet trained on Fashion-MNIST, and a subset of that data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import nn

FOLDER = Path(__file__).resolve().parent


def demo_model() -> nn.Module:
    """The trained network in eval mode: [N, 1, 28, 28] float32 in [0, 1] -> [N, 10] logits."""
    import torch

    from edgecompress.model.demo.network import DemoNet

    model = DemoNet()
    with np.load(FOLDER / "weights.npz", allow_pickle=False) as arrays:
        state = {name: torch.from_numpy(arrays[name].astype(np.float32)) for name in arrays.files}
    missing = set(model.state_dict()) - set(state)
    state |= {name: model.state_dict()[name] for name in missing if "num_batches" in name}
    model.load_state_dict(state)
    return model.eval()


def demo_data() -> dict[str, np.ndarray]:
    """{train,validation,test}_{x,y}: x [N, 1, 28, 28] float32 in [0, 1], y [N] int64."""
    with np.load(FOLDER / "data.npz", allow_pickle=False) as arrays:
        return {
            name: arrays[name].astype(np.float32) / 255
            if name.endswith("_x")
            else arrays[name].astype(np.int64)
            for name in arrays.files
        }
