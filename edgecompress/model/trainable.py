"""The trainable form: a torch.fx graph of plain leaf modules."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass
class Trainable:
    """A GraphModule with what is needed to run and export it.

    Attributes:
        graph: leaf modules and a few functions only; runs with any batch size.
        example: [1, ...] float32.
        input_name: name of the model's input.
        output_name: name of the model's output.
    """

    graph: torch.fx.GraphModule
    example: torch.Tensor
    input_name: str
    output_name: str
