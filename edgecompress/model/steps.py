"""A model as a list of sized steps, and the activations alive at each of them."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod


@dataclass(frozen=True)
class StepSize:
    """One operator; `inputs` and `output` name activations.

    A fused step writes where its first input is and adds no buffer.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    output: str
    output_shape: tuple[int, ...]
    macs: int = 0
    weight_bytes_float: int = 0
    weight_bytes_int8: int = 0
    fused: bool = False


@dataclass(frozen=True)
class StepTable:
    """Steps in execution order, the input's name and shape, and the output's name."""

    input_name: str
    input_shape: tuple[int, ...]
    output_name: str
    steps: tuple[StepSize, ...]


def live_bytes(table: StepTable) -> list[int]:
    """Bytes of int8 activations alive at each step: its inputs, its output, and all needed later.

    Example: x [100] -> conv -> a [50] -> relu (fused) -> add(a, a) -> b [50] gives [150, 150, 100].
    """
    buffer_of = {table.input_name: table.input_name}
    size_of = {table.input_name: prod(table.input_shape)}
    last_use = {table.input_name: 0}
    first_write = {table.input_name: 0}
    for index, step in enumerate(table.steps):
        own = buffer_of[step.inputs[0]] if step.fused else step.output
        buffer_of[step.output] = own
        if not step.fused:
            size_of[own] = prod(step.output_shape)
            first_write[own] = index
        for buffer in {own, *(buffer_of[name] for name in step.inputs)}:
            last_use[buffer] = index
    last_use[buffer_of[table.output_name]] = len(table.steps) - 1
    live = [
        sum(size for name, size in size_of.items() if first_write[name] <= index <= last_use[name])
        for index in range(len(table.steps))
    ]
    # A fused step runs inside the one that makes its buffer, while that one's inputs still exist.
    return [
        live[first_write[buffer_of[step.output]]] if step.fused else live[index]
        for index, step in enumerate(table.steps)
    ]
