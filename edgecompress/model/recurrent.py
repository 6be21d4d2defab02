"""One recurrent layer in one direction: the trainable form of ONNX LSTM and GRU.

Stacked layers are several of these in a row; a bidirectional layer is two of them joined. The
parameters are nn.GRU's and nn.LSTM's own, with the units of each gate in consecutive rows:

    weight_ih_l0 [gates * hidden, inputs]     weight_hh_l0 [gates * hidden, hidden]
    bias_ih_l0, bias_hh_l0 [gates * hidden]   gates r z n (GRU), i f g o (LSTM)

Unit j is therefore rows j, hidden + j, ... of all four, column j of weight_hh_l0, and feature j of
the output: removing it means removing all of these together.
"""

from __future__ import annotations

import torch
from torch import nn


def _run(layer: nn.RNNBase, x: torch.Tensor, reverse: bool, sequence: bool) -> torch.Tensor:
    states, _ = layer(x.flip(1) if reverse else x)
    if not sequence:
        return states[:, -1]
    return states.flip(1) if reverse else states


class Recurrent(nn.Module):
    """[N, time, inputs] to [N, time, hidden], or to the last state [N, hidden]; starts from zeros.

    Attributes:
        reverse: runs from the last step of time to the first; outputs stay in order of time.
        sequence: False gives only the state after the last step that was run.
    """

    gates: int
    kind: type[nn.GRU] | type[nn.LSTM]

    def __init__(
        self, inputs: int, hidden: int, *, reverse: bool = False, sequence: bool = True
    ) -> None:
        super().__init__()
        self.inputs, self.hidden = inputs, hidden
        self.reverse, self.sequence = reverse, sequence
        self.layer = self.kind(inputs, hidden, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _run(self.layer, x, self.reverse, self.sequence)

    def states(self, x: torch.Tensor) -> torch.Tensor:
        """Every state [N, time, hidden], also where only the last is the output."""
        return _run(self.layer, x, self.reverse, True)


class GRU(Recurrent):
    """nn.GRU, one layer."""

    gates = 3
    kind = nn.GRU


class LSTM(Recurrent):
    """nn.LSTM, one layer."""

    gates = 4
    kind = nn.LSTM
