"""Kernels strung together to a program, as if a network had been lowered to them."""

from __future__ import annotations

import numpy as np
import tvm
from conv_cases import Case

from edgecompress.lower.kernels.primfunc import build_function
from edgecompress.lower.memory.arena import place
from edgecompress.lower.program import Argument, Buffer, Program, Step
from edgecompress.records import TensorSpec


def chain(cases: list[Case]) -> Program:
    """The cases one after another; a sum adds what the layer before it read."""
    names = ["x", *(f"t{index}" for index in range(len(cases) - 1)), "y"]
    shapes = [cases[0].activations[0].shape, *(case.kernel.output_shape for case in cases)]
    steps, constants, functions = [], [], {}
    last = dict.fromkeys(names, 0)
    for index, case in enumerate(cases):
        reads = [names[index], names[index - 1]][: len(case.activations)]
        arguments = [Argument("buffer", name) for name in reads]
        for array in case.constants:
            arguments.append(Argument("constant", str(len(constants))))
            constants.append(array)
        last.update(dict.fromkeys(reads, index))
        function, kernel = f"k_{index}", case.kernel
        given = [(array.shape, str(array.dtype)) for array in (*case.activations, *case.constants)]
        functions[function] = build_function(kernel, given, function)
        arguments.append(Argument("buffer", names[index + 1]))
        steps.append(
            Step(f"layer {index}", function, tuple(arguments), kernel, kernel.op, kernel.macs)
        )
    last["y"] = len(cases)
    buffers = {
        name: Buffer(name, shape, "int8", int(np.prod(shape)), index - 1, last[name])
        for index, (name, shape) in enumerate(zip(names, shapes, strict=True))
    }
    spec = {"dtype": "int8", "scale": 0.1, "zero_point": 0}
    return place(
        Program(
            "convolutions", tuple(steps), buffers, tuple(constants), tvm.IRModule(functions),
            inputs=(TensorSpec(name="x", shape=shapes[0], **spec),),
            outputs=(TensorSpec(name="y", shape=shapes[-1], **spec),),
            input_buffers=("x",), output_buffers=("y",), arena_alignment=8,
        )
    )  # fmt: skip
