"""int4, shared and sparse weights from the network to the image, and flash that forces codecs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgecompress.compress.quantize import quantize
from edgecompress.deploy import Deployed, DeployOptions, deploy
from edgecompress.model.trainable import Trainable
from edgecompress.plan.preview import preview
from edgecompress.progress import SILENT
from edgecompress.records import WeightStorage
from edgecompress.target import load_target

TARGET = "cortex-m4"


class Network(nn.Module):
    """[N, 4, 16, 16] -> [N, 10]: the first layer decides the RAM, the later ones the flash."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(4, 32, 3, padding=1)
        self.deep = nn.Conv2d(32, 64, 3, padding=1, stride=2)
        self.point = nn.Conv2d(64, 128, 1)
        self.relu = nn.ReLU()
        self.shrink = nn.MaxPool2d(2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.hidden = nn.Linear(128, 64)
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.deep(self.shrink(self.relu(self.wide(x)))))
        x = self.flatten(self.pool(self.relu(self.point(x))))
        return self.head(self.relu(self.hidden(x)))


@pytest.fixture(scope="module")
def trainable() -> Trainable:
    """`deep` shares 16 values, half of `point` is zero: the others are as training left them."""
    torch.manual_seed(0)
    net = Network().eval()
    with torch.no_grad():
        levels = torch.linspace(-1, 1, 16) * net.deep.weight.abs().max()
        net.deep.weight.copy_(levels[torch.randint(0, 16, net.deep.weight.shape)])
        net.deep.weight.view(64, -1)[:, 0] = levels[-1]  # the same scale in every channel
        net.point.weight.mul_(torch.rand_like(net.point.weight) < 0.5)
    example = torch.zeros(1, 4, 16, 16)
    return Trainable(torch.fx.symbolic_trace(net), example, "x", "y")


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1, (16, 4, 16, 16)).astype(np.float32)


def deployed(model: object, folder: Path, samples: np.ndarray, **options: object) -> Deployed:
    profile = load_target(TARGET)
    return deploy(
        model, profile, folder, name="codecs", model_hash="ab" * 32, samples=samples,
        options=DeployOptions(device="virtual", **options), progress=SILENT,
    )  # type: ignore[arg-type]  # fmt: skip


INT4 = {"hidden": WeightStorage(format="int4")}


def test_each_storage_is_encoded_and_predicted(trainable, samples, tmp_path: Path):
    """Bit-exact layer by layer, and the image weighs what the preview said."""
    model = quantize(trainable, samples[:8], name="preview", weights=INT4)
    image = deployed(model, tmp_path, samples, optimize="size")
    codecs = {layer.name.split("/")[-1]: layer.codec for layer in image.manifest.layers}
    found = [codec for codec in codecs.values() if codec]
    assert sorted(found) == ["bitmap", "lut16", "packed4"], codecs
    assert image.verification.exact
    for layer in image.manifest.layers:
        if layer.codec:
            assert layer.codec_saved_bytes > 0
    predicted = preview(trainable, samples, load_target(TARGET), None, "size", None, INT4)
    assert predicted.flash_parts["weights"] == image.manifest.size.flash_sections["weights"]
    assert predicted.flash_bytes == pytest.approx(image.manifest.size.flash_bytes, rel=0.02)


def test_flash_forces_codecs(trainable, samples, tmp_path: Path):
    """For speed no layer is encoded, until the image would not fit."""
    model = quantize(trainable, samples[:8], name="preview", weights=INT4)
    fast = deployed(model, tmp_path / "fast", samples, optimize="speed")
    used = fast.manifest.size.flash_bytes
    assert not any(layer.codec for layer in fast.manifest.layers)
    limit = used - 3000
    squeezed = deployed(
        model, tmp_path / "tight", samples, optimize="speed", flash_limit_bytes=limit
    )
    assert squeezed.verification.exact
    assert squeezed.manifest.size.flash_bytes <= limit
    assert any(layer.codec for layer in squeezed.manifest.layers)
