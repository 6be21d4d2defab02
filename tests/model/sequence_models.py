"""Small recurrent and transformer networks; every one takes [N, 10, 6]."""

from __future__ import annotations

import torch
from torch import nn

SHAPE = (1, 10, 6)


class Recurrence(nn.Module):
    """A GRU or LSTM, then a dense layer on what `reads` names: last, states, mean or final."""

    def __init__(self, kind: type[nn.RNNBase], reads: str = "last", **options: object) -> None:
        super().__init__()
        self.layer = kind(6, 8, **options)  # type: ignore[arg-type]
        self.head = nn.Linear(16 if options.get("bidirectional") else 8, 4)
        self.reads, self.time_first = reads, not options.get("batch_first")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, final = self.layer(x.transpose(0, 1) if self.time_first else x)
        states = states.transpose(0, 1) if self.time_first else states
        final = final[0] if isinstance(final, tuple) else final
        chosen = {"last": states[:, -1], "states": states, "mean": states.mean(1)}
        return self.head(chosen.get(self.reads, final[-1]))


class ConvolutionThenGru(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(6, 16, 3, padding=1, stride=2)
        self.norm = nn.BatchNorm1d(16)
        self.gru = nn.GRU(16, 12, batch_first=True)
        self.head = nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv(x.transpose(1, 2))))
        return self.head(self.gru(x.transpose(1, 2))[0][:, -1])


class Encoder(nn.Module):
    """nn.TransformerEncoder between a projection with learned positions and a mean over time."""

    def __init__(self, layers: int = 1, *, norm_first: bool = False, gelu: bool = True) -> None:
        super().__init__()
        self.project = nn.Linear(6, 16)
        self.position = nn.Parameter(0.1 * torch.randn(1, 10, 16))
        layer = nn.TransformerEncoderLayer(
            16, 4, 32, dropout=0.1, batch_first=True, norm_first=norm_first,
            activation="gelu" if gelu else "relu",
        )  # fmt: skip
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.project(x) + self.position).mean(1))


class FirstToken(nn.Module):
    """nn.MultiheadAttention, a residual, LayerNorm, and the first step of time."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(6, 16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.project(x)
        return self.head(self.norm(x + self.attention(x, x, x)[0])[:, 0])


class WrittenOut(nn.Module):
    """Attention from its parts, the scale applied behind the product."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(6, 16)
        self.q, self.k, self.v, self.out = (nn.Linear(16, 16) for _ in range(4))
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.project(x)
        batch, time, features = x.shape

        def heads(y: torch.Tensor) -> torch.Tensor:
            return y.view(batch, time, 4, 4).transpose(1, 2)

        q, k, v = heads(self.q(x)), heads(self.k(x)), heads(self.v(x))
        mixed = torch.softmax(q @ k.transpose(-1, -2) / 2.0, -1) @ v
        joined = mixed.transpose(1, 2).reshape(batch, time, features)
        return self.head(nn.functional.gelu(x + self.out(joined)).mean(1))


NETWORKS = {
    "gru": lambda: Recurrence(nn.GRU, batch_first=True),
    "gru time first, mean": lambda: Recurrence(nn.GRU, "mean"),
    "gru of two layers": lambda: Recurrence(nn.GRU, num_layers=2, batch_first=True),
    "gru both ways": lambda: Recurrence(nn.GRU, batch_first=True, bidirectional=True),
    "gru without bias": lambda: Recurrence(nn.GRU, batch_first=True, bias=False),
    "lstm, final state": lambda: Recurrence(nn.LSTM, "final", batch_first=True),
    "lstm, two layers both ways, all states": lambda: Recurrence(
        nn.LSTM, "states", num_layers=2, batch_first=True, bidirectional=True
    ),
    "convolution, gru": ConvolutionThenGru,
    "encoder, gelu": Encoder,
    "encoder, norm first, relu": lambda: Encoder(2, norm_first=True, gelu=False),
    "first token": FirstToken,
    "attention written out": WrittenOut,
}


def build(name: str) -> nn.Module:
    """The network in eval mode, its weights the same every time."""
    torch.manual_seed(0)
    return NETWORKS[name]().eval()
