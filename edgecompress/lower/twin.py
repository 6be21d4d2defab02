"""The numpy twin of a Program: each step's `kernel.reference`, nothing of TVM's code generation."""

from __future__ import annotations

import numpy as np

from edgecompress.errors import BadData, BuildFailed
from edgecompress.lower.memory.views import view_array
from edgecompress.lower.program import Program, Step


def run(program: Program, x: np.ndarray) -> dict[str, np.ndarray]:
    """Every step's output for one input, by step name, in order.

    Args:
        x: device array of the program's single input (`quantize_input`).

    Raises:
        BadData: x has another shape or dtype.
        BuildFailed: a step is a float operator, which has no twin.
    """
    spec = program.inputs[0]
    if len(program.inputs) != 1 or x.shape != spec.shape or str(x.dtype) != spec.dtype:
        raise BadData(
            f"Input '{spec.name}' is {spec.dtype} {spec.shape}; given {x.dtype} {x.shape}."
        )
    values = {program.input_buffers[0]: np.ascontiguousarray(x)}
    outputs = {}
    for step in program.steps:
        if step.kernel is None:
            raise BuildFailed(f"Step {step.name} stays float and has no numpy twin.")
        arrays = _arguments(program, step, values)
        result = np.ascontiguousarray(step.kernel.reference(*arrays))
        outputs[step.name] = result
        _store(program, step, values, result)
    return outputs


def _store(program: Program, step: Step, values: dict[str, np.ndarray], result: np.ndarray) -> None:
    """Keeps a step's output; a view's goes into its parent, made by its first view."""
    buffer = program.buffers[step.output]
    if not buffer.view_of:
        values[buffer.name] = result
        return
    parent = program.buffers[buffer.view_of]
    whole = values.setdefault(parent.name, np.zeros(parent.shape, parent.dtype))
    np.copyto(view_array(whole, buffer), result.reshape(buffer.shape))


def _arguments(program: Program, step: Step, values: dict[str, np.ndarray]) -> list[np.ndarray]:
    """A step's inputs in the shapes its kernel declares: a reshape has no step of its own."""
    arrays = []
    parameters = program.functions[step.function].params
    for argument, parameter in zip(step.arguments[:-1], parameters, strict=False):
        if argument.kind == "scratch":
            continue
        if argument.kind == "buffer":
            buffer = program.buffers[argument.name]
            array = values[buffer.view_of or buffer.name]
            array = view_array(array, buffer) if buffer.view_of else array
        else:
            array = program.constants[int(argument.name)]
        arrays.append(array.reshape([int(size) for size in parameter.ty.shape]))
    return arrays
