"""One operator at a time: small TFLite models of it, and its kernel against LiteRT and its twin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from host_kernels import HostKernels
from litert import SAME, Reference, TinyModel, sample_inputs

from edgecompress.lower.importers import import_tflite
from edgecompress.lower.kernels import MATCHERS
from edgecompress.lower.kernels.interface import Match
from edgecompress.lower.passes.canonicalize import canonicalize
from edgecompress.lower.passes.graph import Graph

Rounding = Literal["smmla", "tflite"]
Parameters = tuple[float, int]


def unary_model(
    name: str,
    input_parameters: Parameters,
    output_parameters: Parameters,
    shape: Sequence[int] = (1, 16, 16, 1),
    **options: Any,
) -> bytes:
    """x -> name(x), a (scale, zero point) for each."""
    model = TinyModel()
    x, y = model.tensor(shape, *input_parameters), model.tensor(shape, *output_parameters)
    model.operator(name, [x], y, 1, **options)
    return model.content([x], [y])


def binary_model(
    name: str,
    first: Parameters,
    second: Parameters,
    output: Parameters,
    activation: int = 0,
    constant: np.ndarray | None = None,
) -> bytes:
    """[1, 8, 8, 4] tensors, or the second a constant."""
    model, shape = TinyModel(), (1, 8, 8, 4)
    x = model.tensor(shape, *first)
    other = model.tensor(shape if constant is None else constant.shape, *second, constant)
    y = model.tensor(shape, *output)
    model.operator(name, [x, other], y, fusedActivationFunction=activation)
    return model.content([x, other] if constant is None else [x], [y])


def pool_model(name: str, padding: int, kernel: int, stride: int, activation: int = 0) -> bytes:
    """A square window over [1, 9, 8, 4]."""
    model, parameters = TinyModel(), (0.05, 3)
    sizes = [
        -(-size // stride) if padding == SAME else (size - kernel) // stride + 1 for size in (9, 8)
    ]
    x = model.tensor((1, 9, 8, 4), *parameters)
    y = model.tensor((1, *sizes, 4), *parameters)
    model.operator(
        name,
        [x],
        y,
        padding=padding,
        strideH=stride,
        strideW=stride,
        filterHeight=kernel,
        filterWidth=kernel,
        fusedActivationFunction=activation,
    )
    return model.content([x], [y])


def mean_model(
    shape: Sequence[int],
    axes: Sequence[int],
    keep: bool,
    input_parameters: Parameters,
    output_parameters: Parameters,
) -> bytes:
    model = TinyModel()
    x = model.tensor(shape, *input_parameters)
    listed = model.tensor((len(axes),), data=np.array(axes, np.int32))
    kept = [1 if axis in axes else size for axis, size in enumerate(shape)]
    dropped = [size for axis, size in enumerate(shape) if axis not in axes]
    y = model.tensor(kept if keep else dropped, *output_parameters)
    model.operator("MEAN", [x, listed], y, keepDims=keep)
    return model.content([x], [y])


def match_model(content: bytes, requantize: Rounding) -> tuple[Match, list[int]]:
    """The kernel of a one-operator model, and which model input each argument is."""
    imported = import_tflite(content)
    function = canonicalize(imported.module["main"], imported.layout)
    graph = Graph(function, layout=imported.layout, requantize=requantize)
    found = (matcher(graph, graph.outputs[0]) for matcher in MATCHERS)
    match = next(match for match in found if match is not None)
    inputs = list(graph.inputs)
    return match, [inputs.index(value) for value in match.inputs]


def litert_difference(content: bytes, requantize: Rounding, samples: int = 40) -> int:
    """Largest difference of the numpy twin from LiteRT's reference kernel, in int8 units."""
    reference = Reference(content)
    inputs = [
        sample_inputs(shape, samples, seed) for seed, shape in enumerate(reference.input_shapes)
    ]
    match, order = match_model(content, requantize)
    worst = 0
    for sample in range(samples):
        one = [array[sample : sample + 1] for array in inputs]
        theirs = reference.run(*one)[reference.output].astype(np.int32)
        ours = match.kernel.reference(*(one[index] for index in order), *match.constants)
        worst = max(worst, int(np.abs(ours.reshape(theirs.shape) - theirs).max()))
    return worst


def assert_host_is_twin(
    cases: list[tuple[Any, list[np.ndarray], Sequence[np.ndarray]]], samples: int = 4
) -> None:
    """The compiled kernels and their twins agree on every bit.

    Args:
        cases: kernel, its activations, its constants; activations are drawn anew each sample.
    """
    random = np.random.default_rng(0)
    library = HostKernels([(kernel, [*given, *fixed]) for kernel, given, fixed in cases])
    for index, (kernel, activations, constants) in enumerate(cases):
        given = activations
        for _ in range(samples):
            host = library.run(index, *given, *constants)
            twin = kernel.reference(*given, *constants)
            assert host.shape == twin.shape, kernel
            assert host.dtype == twin.dtype == np.int8
            np.testing.assert_array_equal(host, twin, err_msg=str(kernel))
            given = [random.integers(-128, 128, x.shape).astype(np.int8) for x in activations]


def random_int8(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8)
