"""Activity recognition on HAPT: users 1-24 train, 25-30 test; int8 keeps the float accuracy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgecompress.compress.quantize import quantize
from edgecompress.lower.pipeline import lower
from edgecompress.lower.program import dequantize_output, quantize_input
from edgecompress.model.export import export_module
from edgecompress.model.load import load_source
from edgecompress.model.trainable import to_trainable
from edgecompress.target import load_target
from edgecompress.verify.host import HostModel

WINDOW, LAST_TRAINING_USER, BASIC = 128, 24, 6


class Convolutional(nn.Module):
    """About 9 k weights on [N, 6, 128]."""

    steps, rate = 250, 5e-3

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(6, 24, 5, padding=2), nn.BatchNorm1d(24), nn.ReLU(), nn.MaxPool1d(2),
            nn.Conv1d(24, 32, 5, padding=2), nn.BatchNorm1d(32), nn.ReLU(), nn.MaxPool1d(2),
            nn.Conv1d(32, 32, 3, padding=1), nn.BatchNorm1d(32), nn.ReLU(),
            nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, BASIC),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Recurrent(nn.Module):
    """Strided convolution, then a GRU over 32 steps."""

    steps, rate = 300, 5e-3

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(6, 16, 4, stride=4)
        self.gru = nn.GRU(16, 32, batch_first=True)
        self.head = nn.Linear(32, BASIC)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv(x)).transpose(1, 2)
        return self.head(self.gru(x)[0][:, -1])


@pytest.fixture(scope="module")
def windows(shared_data: Path) -> dict[str, np.ndarray]:
    """Half-overlapping windows of one of the six basic activities, [N, 6, 128] and labels."""
    with np.load(shared_data / "hapt_raw50hz.npz") as data:
        signal = data["signal"].astype(np.float32) / data["scale"]
        label, user, recording = data["label"], data["user"], data["recording"]
    starts = np.arange(0, len(signal) - WINDOW, WINDOW // 2)
    ends = starts + WINDOW - 1
    pure = (label[starts] == label[ends]) & (recording[starts] == recording[ends])
    kept = starts[pure & (label[starts] >= 1) & (label[starts] <= BASIC)]
    middle = label[kept + WINDOW // 2] == label[kept]
    kept = kept[middle]
    x = np.stack([signal[start : start + WINDOW].T for start in kept])
    y = label[kept].astype(np.int64) - 1
    training = user[kept] <= LAST_TRAINING_USER
    return {
        "train_x": x[training], "train_y": y[training], "test_x": x[~training],
        "test_y": y[~training],
    }  # fmt: skip


@pytest.mark.parametrize("build", [Convolutional, Recurrent])
def test_int8_keeps_the_accuracy(
    build: type[nn.Module], windows: dict[str, np.ndarray], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = build()
    x, y = (torch.from_numpy(windows[f"train_{part}"]) for part in "xy")
    optimizer = torch.optim.Adam(network.parameters(), network.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, network.rate, network.steps)
    for _ in range(network.steps):
        rows = torch.randint(len(x), (64,))
        loss = nn.functional.cross_entropy(network(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()
    test_x, test_y = windows["test_x"][::4], windows["test_y"][::4]
    with torch.no_grad():
        real = network(torch.from_numpy(test_x)).argmax(1).numpy()
    path = tmp_path / "net.onnx"
    path.write_bytes(export_module(network, (1, 6, WINDOW), "net").SerializeToString())
    trainable = to_trainable(load_source(str(path)))
    deployable = quantize(trainable, windows["train_x"][::20], name="net")
    program = lower(deployable, name="net", profile=load_target("cortex-m4"))
    host = HostModel(program)
    stored = [dequantize_output(program, host.run(quantize_input(program, row))) for row in test_x]
    ours = np.concatenate(stored).argmax(1)
    accuracy = [100 * float((made == test_y).mean()) for made in (real, ours)]
    print(build.__name__, accuracy, len(test_y))
    assert accuracy[0] > 80
    assert accuracy[1] > accuracy[0] - 1.0
