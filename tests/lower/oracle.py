"""A model's program beside LiteRT's reference kernels, layer by layer."""

from __future__ import annotations

from typing import Literal

import numpy as np
from litert import Reference, sample_inputs

from edgecompress.lower.pipeline import lower
from edgecompress.lower.program import Program, Step
from edgecompress.target.registry import load_target
from edgecompress.verify.host import HostModel


class Oracle:
    """A model's programs in both roundings beside what LiteRT's reference kernels compute."""

    def __init__(self, content: bytes, name: str, samples: int = 100) -> None:
        self.content, self.name = content, name
        reference = Reference(content)
        self.inputs = sample_inputs(reference.input_shapes[0], samples)
        runs = [reference.run(self.inputs[i : i + 1]) for i in range(samples)]
        self.tensors = {index: np.concatenate([run[index] for run in runs]) for index in runs[0]}
        self.layers = reference.layers
        self.input_index = reference.inputs[0]

    def program(self, requantize: Literal["smmla", "tflite"]) -> Program:
        program = lower(
            self.content,
            name=self.name,
            profile=load_target("cortex-m7"),
            requantize=requantize,
            fuse=False,  # LiteRT's tensors are compared one by one
        )
        assert program.float_layers == ()
        assert len(program.steps) == len(self.layers), "one step for each LiteRT operator"
        return program

    def expected(self, program: Program) -> dict[str, np.ndarray]:
        """Buffer name -> LiteRT's tensor [samples, ...]; steps may come in another valid order."""
        indices = {program.input_buffers[0]: self.input_index}
        waiting = list(self.layers)
        for step in program.steps:
            reads = sorted(
                indices[argument.name]
                for argument in step.arguments[:-1]
                if argument.kind == "buffer"
            )
            size = _weight_size(program, step)
            layer = next(
                layer
                for layer in waiting
                if sorted(layer.inputs) == reads and size in (None, layer.constant_size)
            )
            waiting.remove(layer)
            indices[step.output] = layer.output
        return {buffer: self.tensors[index] for buffer, index in indices.items()}


def _weight_size(program: Program, step: Step) -> int | None:
    """How many weights a layer has: tells two layers with the same input apart."""
    constants = [argument for argument in step.arguments if argument.kind == "constant"]
    weighted = step.op in ("conv2d", "depthwise_conv2d", "dense")
    return program.constants[int(constants[0].name)].size if weighted else None


def isolated(program: Program, step: Step, tensors: dict[str, np.ndarray]) -> np.ndarray:
    """The numpy twin of one step on LiteRT's own inputs, [samples, ...]."""
    parameters = program.functions[step.function].params
    fixed, varying = {}, {}
    for position, (argument, parameter) in enumerate(
        zip(step.arguments[:-1], parameters, strict=False)
    ):
        shape = [int(size) for size in parameter.ty.shape]
        if argument.kind == "constant":
            fixed[position] = program.constants[int(argument.name)].reshape(shape)
        else:
            varying[position] = tensors[argument.name].reshape(-1, *shape)
    results = []
    for sample in range(len(next(iter(varying.values())))):
        arrays = fixed | {position: stack[sample] for position, stack in varying.items()}
        results.append(step.kernel.reference(*(arrays[i] for i in range(len(arrays)))))
    return np.stack(results)


def difference(ours: np.ndarray, theirs: np.ndarray) -> int:
    """The largest difference in int8 units."""
    return int(np.abs(ours.reshape(theirs.shape).astype(np.int32) - theirs).max())


def check_exact(oracle: Oracle) -> None:
    """`requantize="tflite"`: twin and host build, each layer, every sample, tolerance zero."""
    program = oracle.program("tflite")
    expected = oracle.expected(program)
    twin = {s.name: difference(isolated(program, s, expected), expected[s.output])
            for s in program.steps}  # fmt: skip
    assert twin == dict.fromkeys(twin, 0)
    host = HostModel(program)
    for sample, x in enumerate(oracle.inputs):
        layers = host.layers(x.reshape(program.inputs[0].shape))
        for step in program.steps:
            theirs = expected[step.output][sample]
            assert difference(layers[step.name], theirs) == 0, (step.name, sample)


def check_within_one(oracle: Oracle) -> None:
    """The default rounding: each layer alone, on LiteRT's own inputs, within one unit."""
    program = oracle.program("smmla")
    expected = oracle.expected(program)
    worst = {s.name: difference(isolated(program, s, expected), expected[s.output])
             for s in program.steps}  # fmt: skip
    assert {name: value for name, value in worst.items() if value > 1} == {}
