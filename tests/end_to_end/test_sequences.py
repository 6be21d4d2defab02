"""Networks for sensors, recurrent layers and attention, from float to the virtual board."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgecompress.compress.quantize import quantize
from edgecompress.deploy import DeployOptions, deploy
from edgecompress.lower.program import dequantize_output, quantize_input
from edgecompress.model.export import export_module
from edgecompress.model.load import load_source
from edgecompress.model.reference import run_onnx
from edgecompress.model.trainable import to_trainable
from edgecompress.progress import Silent
from edgecompress.target import load_target

CHANNELS, STEPS, CLASSES = 3, 40, 4


class Sensor(nn.Module):
    """A 1-D convolutional network on [N, 3, 40]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(CHANNELS, 12, 5, padding=2), nn.BatchNorm1d(12), nn.ReLU(), nn.MaxPool1d(2),
            nn.Conv1d(12, 12, 3, padding=1, groups=12), nn.Conv1d(12, 16, 1), nn.BatchNorm1d(16),
            nn.ReLU6(), nn.AvgPool1d(2), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
            nn.Linear(16, CLASSES),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Stacked(nn.Module):
    """An LSTM in both directions below a GRU of which only the last state is read."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(CHANNELS, 8, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(16, 12, batch_first=True)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(x.transpose(1, 2))
        return self.head(self.gru(states)[0][:, -1])


class Former(nn.Module):
    """One transformer encoder layer over projected steps."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(CHANNELS, 16)
        self.position = nn.Parameter(0.1 * torch.randn(1, STEPS, 16))
        self.layer = nn.TransformerEncoderLayer(
            16, 2, 32, dropout=0.0, batch_first=True, activation="gelu"
        )
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.project(x.transpose(1, 2)) + self.position
        return self.head(self.layer(x).mean(1))


def waves(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Four frequencies, also told by which channels are loud; random phases, noise."""
    random = np.random.default_rng(0)
    y = random.integers(0, CLASSES, count)
    phase = random.uniform(0, 6, (count, 1, 1)) + np.arange(CHANNELS)[None, :, None]
    x = np.sin(np.arange(STEPS) * (0.25 + 0.3 * y[:, None, None]) + phase)
    loud = 0.5 + (y[:, None, None] >> np.arange(CHANNELS)[None, :, None] & 1)
    noisy = (x * loud + random.normal(0, 0.3, x.shape)).astype(np.float32)
    return torch.from_numpy(noisy), torch.from_numpy(y)


def trained(build: type[nn.Module]) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """The network after a few seeded steps, and data it has not seen."""
    torch.manual_seed(0)
    network = build()
    x, y = waves(600)
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    for start in range(0, 100 * 32, 32):
        rows = torch.arange(start, start + 32) % 400
        loss = nn.functional.cross_entropy(network(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval(), x[400:], y[400:]


@pytest.mark.parametrize("build", [Sensor, Stacked, Former])
def test_is_exact_on_the_device_and_as_good_as_float(
    build: type[nn.Module], tmp_path: Path
) -> None:
    network, x, y = trained(build)
    path = tmp_path / "net.onnx"
    path.write_bytes(export_module(network, (1, CHANNELS, STEPS), "net").SerializeToString())
    trainable = to_trainable(load_source(str(path)))
    deployable = quantize(trainable, x[:100].numpy(), name="net")
    deployed = deploy(
        deployable, load_target("cortex-m4"), tmp_path / "image", name="net",
        model_hash="0" * 64, samples=x.numpy(), options=DeployOptions(device="virtual"),
        progress=Silent(),
    )  # fmt: skip
    assert deployed.verification.agrees
    assert not deployed.program.float_layers
    program, host = deployed.program, deployed.host
    made = [dequantize_output(program, host.run(quantize_input(program, row))) for row in x.numpy()]
    ours = np.concatenate(made)
    with torch.no_grad():
        real = network(x).numpy()
    accuracy = {name: float((out.argmax(1) == y.numpy()).mean()) for name, out in
                {"float": real, "ours": ours}.items()}  # fmt: skip
    assert accuracy["float"] > 0.6
    assert accuracy["ours"] >= accuracy["float"] - 0.02
    file_says = run_onnx(deployable, x.numpy())
    assert np.abs(file_says - ours).mean() < 0.05 * real.std()
    assert np.abs(real - ours).mean() < 0.1 * real.std()
