"""What a user's own module file looks like, good and bad; tests name it as `user_models:x`."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


class Mixed(nn.Module):
    """Functional and module layers, a reused ReLU, concatenation, a flatten in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.ReLU6()
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(16 * 4 * 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.norm(self.entry(x)))
        y = torch.relu(self.depthwise(x) + x)
        y = torch.cat([nn.functional.max_pool2d(x, 2), nn.functional.avg_pool2d(y, 2)], 1)
        return torch.softmax(self.head(self.dropout(y).flatten(1)), 1)


def mixed() -> nn.Module:
    torch.manual_seed(0)
    model = Mixed()
    nn.init.uniform_(model.norm.running_mean, -0.2, 0.2)
    nn.init.uniform_(model.norm.running_var, 0.5, 1.5)
    return model


def perceptron() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(12, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)
    )
    model.input_shape = (1, 12)
    return model


def not_a_module() -> dict[str, int]:
    return {"x": 1}


def raises() -> nn.Module:
    raise FileNotFoundError("weights.pt is missing")


def recurrent() -> nn.Module:
    class Recurrent(nn.Module):
        input_shape = (1, 6, 4)

        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(4, 5, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.gru(x)[0]

    return Recurrent()


def branching() -> nn.Module:
    class Branching(nn.Module):
        input_shape = (1, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 if x.sum() > 0 else x

    return Branching()


def data() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"x": rng.random((20, 3, 8, 8), np.float32), "y": rng.integers(0, 5, 20)}


VALUE = 3
