"""A fit that takes seconds: 25 k weights, a made-up data set it can learn, a budget."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

TARGET = "cortex-m4"
FLASH = "20K"
MODEL = "small_job:model"
DATA = "small_job:data"


class SmallNet(nn.Module):
    """[N, 1, 12, 12] -> [N, 4] logits; residual and depthwise, so channels are coupled."""

    input_shape = (1, 1, 12, 12)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(24, 24, 3, padding=1), nn.BatchNorm2d(24))
        self.depthwise = nn.Sequential(
            nn.Conv2d(24, 24, 3, stride=2, padding=1, groups=24), nn.BatchNorm2d(24), nn.ReLU()
        )
        self.wide = nn.Sequential(nn.Conv2d(24, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU())
        self.head = nn.Linear(64, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.body(x))
        x = self.wide(self.depthwise(x))
        return self.head(x.mean((2, 3)))


def data() -> dict[str, np.ndarray]:
    """Four classes of noisy stripes: horizontal, vertical, and both diagonals."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[0:12, 0:12]
    phases = [rows, columns, rows + columns, rows - columns]
    y = random.integers(0, 4, 600)
    shift = random.uniform(0, 6, 600)
    x = np.stack([np.sin(phases[k] * 1.3 + s) for k, s in zip(y, shift, strict=True)])
    x = (x + random.normal(0, 0.4, x.shape)).astype(np.float32)[:, None]
    return {"x": x, "y": y.astype(np.int64)}


def model() -> nn.Module:
    """SmallNet after two hundred seeded steps on the data above, in eval mode."""
    torch.manual_seed(0)
    net = SmallNet()
    made = data()
    x, y = torch.from_numpy(made["x"]), torch.from_numpy(made["y"])
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    net.train()
    for step in range(200):
        rows = torch.randperm(400, generator=torch.Generator().manual_seed(step))[:32]
        loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()
