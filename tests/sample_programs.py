"""Small hand-made Programs, so that link and verify are tested without the importer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm
from tvm import te

from edgecompress.lower.memory.arena import place
from edgecompress.lower.program import Argument, Buffer, Program, Step
from edgecompress.records import TensorSpec


@dataclass(frozen=True)
class ShiftDense:
    """y[o] = clip((bias[o] + sum_k x[k] w[o, k]) >> 9): integer enough, and easy to check."""

    inputs: int
    outputs: int
    op: str = "dense"

    @property
    def macs(self) -> int:
        return self.inputs * self.outputs

    def placeholders(self) -> list[te.Tensor]:
        return [
            te.placeholder((1, self.inputs), "int8", "x"),
            te.placeholder((self.outputs, self.inputs), "int8", "w"),
            te.placeholder((self.outputs,), "int32", "b"),
        ]

    def compute(self, x: te.Tensor, w: te.Tensor, b: te.Tensor) -> te.Tensor:
        k = te.reduce_axis((0, self.inputs), "k")
        total = te.compute(
            (1, self.outputs),
            lambda n, o: te.sum(x[n, k].astype("int32") * w[o, k].astype("int32"), axis=k),
            "total",
        )
        biased = te.compute((1, self.outputs), lambda n, o: (total[n, o] + b[o]) >> 9, "biased")
        return te.compute(
            (1, self.outputs),
            lambda n, o: te.max(te.min(biased[n, o], 127), -128).astype("int8"),
            "y",
        )

    def schedule(self, schedule, function_name) -> None: ...

    def reference(self, x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
        total = x.astype(np.int32) @ w.astype(np.int32).T + b
        return np.clip(total >> 9, -128, 127).astype(np.int8)


@dataclass(frozen=True)
class SaturatingAdd:
    length: int
    op: str = "add"
    macs: int = 0

    def placeholders(self) -> list[te.Tensor]:
        return [te.placeholder((1, self.length), "int8", name) for name in "ab"]

    def compute(self, a: te.Tensor, b: te.Tensor) -> te.Tensor:
        return te.compute(
            (1, self.length),
            lambda n, i: te.max(
                te.min(a[n, i].astype("int32") + b[n, i].astype("int32"), 127), -128
            ).astype("int8"),
            "y",
        )

    def schedule(self, schedule, function_name) -> None: ...

    def reference(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.clip(a.astype(np.int32) + b, -128, 127).astype(np.int8)


@dataclass(frozen=True)
class FloatDense:
    inputs: int
    outputs: int
    op: str = "dense"

    @property
    def macs(self) -> int:
        return self.inputs * self.outputs

    def placeholders(self) -> list[te.Tensor]:
        return [
            te.placeholder((1, self.inputs), "float32", "x"),
            te.placeholder((self.outputs, self.inputs), "float32", "w"),
        ]

    def compute(self, x: te.Tensor, w: te.Tensor) -> te.Tensor:
        k = te.reduce_axis((0, self.inputs), "k")
        total = te.compute(
            (1, self.outputs), lambda n, o: te.sum(x[n, k] * w[o, k], axis=k), "total"
        )
        return te.compute((1, self.outputs), lambda n, o: te.tanh(total[n, o]), "y")

    def schedule(self, schedule, function_name) -> None: ...

    def reference(self, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        return np.tanh(x @ w.T)


def _function(kernel, name: str):
    tensors = kernel.placeholders()
    function = te.create_prim_func([*tensors, kernel.compute(*tensors)])
    return function.with_attr("global_symbol", name)


def _program(name, dtype, layers, constants, functions, alignment) -> Program:
    """layers: (step name, kernel, function, activation names, constant indices, output name)."""
    last_use = {"x": -1}
    steps, shapes, first = [], {"x": layers[0][1].inputs}, {"x": -1}
    for index, (step, kernel, function, activations, indices, output) in enumerate(layers):
        arguments = [Argument("buffer", item) for item in activations]
        arguments += [Argument("constant", str(item)) for item in indices]
        arguments.append(Argument("buffer", output))
        steps.append(Step(step, function, tuple(arguments), kernel, kernel.op, kernel.macs))
        last_use.update(dict.fromkeys(activations, index))
        first[output], shapes[output] = index, getattr(kernel, "outputs", None) or kernel.length
    last_use["y"] = len(layers)
    size = np.dtype(dtype).itemsize
    buffers = {
        item: Buffer(
            item,
            (1, length),
            dtype,
            length * size,
            first[item],
            last_use[item],
        )
        for item, length in shapes.items()
    }
    quantized = {"scale": 0.05, "zero_point": -3} if dtype == "int8" else {}
    return place(
        Program(
            name=name,
            steps=tuple(steps),
            buffers=buffers,
            constants=tuple(constants),
            functions=tvm.IRModule({item: _function(kernel, item) for item, kernel in functions}),
            inputs=(TensorSpec(name="x", shape=(1, shapes["x"]), dtype=dtype, **quantized),),
            outputs=(TensorSpec(name="y", shape=(1, shapes["y"]), dtype=dtype, **quantized),),
            input_buffers=("x",),
            output_buffers=("y",),
            arena_alignment=alignment,
        )
    )


def int8_program(*, width: int = 64, alignment: int = 4) -> Program:
    """Four dense layers and a residual add; two layers share a kernel, two a bias."""
    generator = np.random.default_rng(5)

    def weights(outputs: int, inputs: int) -> np.ndarray:
        return generator.integers(-127, 128, (outputs, inputs)).astype(np.int8)

    def bias(outputs: int) -> np.ndarray:
        return generator.integers(-500, 500, outputs).astype(np.int32)

    wide, square, narrow = ShiftDense(96, width), ShiftDense(width, width), ShiftDense(width, 10)
    shared = bias(width)
    constants = [
        weights(width, 96), shared, weights(width, width), shared.copy(),
        weights(width, width), bias(width), weights(10, width), bias(10),
    ]  # fmt: skip
    layers = [
        ("stem", wide, "k_wide", ["x"], [0, 1], "a"),
        ("block/one", square, "k_square", ["a"], [2, 3], "b"),
        ("block/two", square, "k_square", ["b"], [4, 5], "c"),
        ("block/add", SaturatingAdd(width), "k_add", ["a", "c"], [], "d"),
        ("head", narrow, "k_narrow", ["d"], [6, 7], "y"),
    ]
    functions = [
        ("k_wide", wide), ("k_square", square), ("k_add", SaturatingAdd(width)),
        ("k_narrow", narrow),
    ]  # fmt: skip
    return _program("sample", "int8", layers, constants, functions, alignment)


def float_program(*, alignment: int = 16) -> Program:
    """Two float dense layers with tanh, which calls the C library's mathematics."""
    generator = np.random.default_rng(6)
    first, second = FloatDense(20, 33), FloatDense(33, 7)
    constants = [
        generator.normal(0, 0.3, shape).astype(np.float32) for shape in ((33, 20), (7, 33))
    ]
    layers = [("one", first, "k_one", ["x"], [0], "a"), ("two", second, "k_two", ["a"], [1], "y")]
    functions = [("k_one", first), ("k_two", second)]
    return _program("floats", "float32", layers, constants, functions, alignment)
