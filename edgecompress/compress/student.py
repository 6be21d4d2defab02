"""A compact student in a model's place: the same input, the same outputs, weights of its own."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from edgecompress.compress.layers import ends_in_softmax
from edgecompress.errors import BadInput
from edgecompress.model.compact import student_of
from edgecompress.model.trainable import Trainable
from edgecompress.records import StudentChoice


def student_for(trainable: Trainable, choice: StudentChoice, seed: int) -> Trainable:
    """The untrained student, fed and read like `trainable`; a softmax ends both or neither.

    Raises:
        BadInput: no such family, or outputs that are not [1, values].
    """
    outputs = output_count(trainable)
    if outputs is None:
        raise BadInput("A compact student gives one row of values, the model gives something else.")
    made = student_of(choice, tuple(trainable.example.shape), outputs)
    return replace(
        made.trainable(seed, probabilities=ends_in_softmax(trainable.graph)),
        example=trainable.example,
        input_name=trainable.input_name,
        output_name=trainable.output_name,
    )


def output_count(trainable: Trainable) -> int | None:
    """Values of an output [1, values]; None for any other form."""
    with torch.no_grad():
        output = copy.deepcopy(trainable.graph).eval()(trainable.example)
    return output.shape[1] if output.dim() == 2 else None
