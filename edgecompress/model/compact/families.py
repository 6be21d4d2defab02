"""The families students come from, each a grid of widths, depths and resolutions.

    ds_cnn     a convolution, then depthwise separable blocks of one width (Zhang et al. 2017,
               "Hello Edge", section 4): keyword spotting, sensors
    mobilenet  depthwise separable blocks whose width doubles as the resolution halves (Howard et
               al. 2017, table 1): images
    mcunet     inverted residual blocks with wide depthwise filters (Lin et al. 2020, MCUNet;
               Sandler et al. 2018, MobileNetV2): most accuracy for little RAM
    mlp        dense layers, for inputs that are plain features

Inputs [N, C, L] are read as maps of height one, so filters are 1 x k there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Literal

import torch

from edgecompress.errors import BadInput
from edgecompress.model.compact.builder import Builder, Value
from edgecompress.model.trainable import Trainable
from edgecompress.records import StudentChoice

Task = Literal["classification", "regression", "autoencoder"]

_WIDTHS = (8, 12, 16, 24, 32, 48, 64, 96, 128)
_STAGES = 4
_SMALLEST_SIDE = 4


@dataclass(frozen=True)
class Student:
    """One network of a family, described; `trainable` builds it.

    Attributes:
        family: ds_cnn, mobilenet, mcunet or mlp.
        width: channels of the first layer.
        depth: blocks (of each stage where the family has stages).
        shrink: the input's height and width are divided by it first.
        weight_bytes: int8 weights, biases and multipliers; code is not in it.
        peak_bytes: most int8 activations alive at one layer.
        macs: of one inference.
    """

    family: str
    width: int
    depth: int
    shrink: int
    input_shape: tuple[int, ...]
    outputs: int
    weight_bytes: int
    peak_bytes: int
    macs: int

    @property
    def choice(self) -> StudentChoice:
        """What a plan keeps of it: the input and the outputs are those of the model it learns."""
        return StudentChoice(
            family=self.family, width=self.width, depth=self.depth, shrink=self.shrink
        )

    @property
    def name(self) -> str:
        return self.choice.name

    def trainable(self, seed: int = 0, *, probabilities: bool = False) -> Trainable:
        """The network with seeded initial weights; the caller's random state is left alone.

        Args:
            probabilities: a softmax ends it.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            builder = Builder(self.input_shape)
            output = _FAMILIES[self.family](builder, self)
            return builder.trainable(builder.softmax(output) if probabilities else output)


def students(
    input_shape: tuple[int, ...],
    classes: int,
    task: Task = "classification",
    *,
    flash_bytes: int | None = None,
    ram_bytes: int | None = None,
    macs: int | None = None,
) -> list[Student]:
    """Every student within the budget, most multiply-accumulates first; the order is fixed.

    Args:
        input_shape: with its batch of 1: [1, C, H, W], [1, C, L], [1, time, features] (more steps
            than features) or [1, features].
        classes: outputs of a classifier, or values a regression predicts.
        task: "autoencoder" gives as many outputs as inputs, for [1, features] only.
        flash_bytes, ram_bytes: for weights and activations alone; take off code and stack first.

    Raises:
        BadInput: a shape or task no family serves.
    """
    shape = tuple(input_shape)
    if len(shape) not in (2, 3, 4) or min(shape) < 1 or shape[0] != 1:
        raise BadInput(
            f"No compact student takes inputs of {list(shape)}.",
            next_step="Give [1, C, H, W], [1, C, L], [1, time, features] or [1, features].",
        )
    if task == "autoencoder" and len(shape) != 2:
        raise BadInput(
            f"Compact autoencoders take plain features, not {list(shape)}.",
            next_step="Flatten the input, or compress the model itself.",
        )
    outputs = shape[1] if task == "autoencoder" else classes
    if outputs < 1:
        raise BadInput(f"A student needs at least one output, not {outputs}.")
    limits = (flash_bytes, ram_bytes, macs)
    found = [student for student in _grid(shape, outputs) if _fits(student, limits)]
    return sorted(found, key=lambda s: (-s.macs, s.weight_bytes, s.name))


def student_of(choice: StudentChoice, input_shape: tuple[int, ...], outputs: int) -> Student:
    """The student a plan names, for a model of such an input and so many outputs.

    Raises:
        BadInput: there is no such family.
    """
    if choice.family not in _FAMILIES:
        raise BadInput(
            f"There is no family of students '{choice.family}'.",
            next_step=f"The families are {', '.join(_FAMILIES)}.",
        )
    return _drafted(choice.family, choice.width, choice.depth, choice.shrink, input_shape, outputs)


def _drafted(
    family: str, width: int, depth: int, shrink: int, shape: tuple[int, ...], outputs: int
) -> Student:
    draft = Student(family, width, depth, shrink, shape, outputs, 0, 0, 0)
    builder = Builder(shape, draft=True)
    _FAMILIES[family](builder, draft)
    sizes = (builder.weight_bytes, builder.peak_bytes, builder.macs)
    return Student(family, width, depth, shrink, shape, outputs, *sizes)


def _fits(student: Student, limits: tuple[int | None, int | None, int | None]) -> bool:
    sizes = (student.weight_bytes, student.peak_bytes, student.macs)
    return all(limit is None or size <= limit for size, limit in zip(sizes, limits, strict=True))


def _grid(shape: tuple[int, ...], outputs: int) -> Iterator[Student]:
    if len(shape) == 2:
        choices = product(("mlp",), (*_WIDTHS, 192, 256), (1, 2, 3), (1,))
    else:
        choices = product(("ds_cnn", "mobilenet", "mcunet"), _WIDTHS, (1, 2, 3, 4), (1, 2))
    for family, width, depth, shrink in choices:
        if shrink > 1 and _long_side(shape) // shrink < 4 * _SMALLEST_SIDE:
            continue
        yield _drafted(family, width, depth, shrink, shape, outputs)


def _long_side(shape: tuple[int, ...]) -> int:
    return max(shape[1:]) if len(shape) == 3 else max(shape[2:])


def _as_map(builder: Builder, student: Student) -> Value:
    """The input as [1, C, H, W], at the student's resolution."""
    x = builder.input
    if len(x.shape) == 3:
        if x.shape[1] > x.shape[2]:
            x = builder.time_first("features_first", x)
        x = builder.reshape("as_map", x, (1, x.shape[1], 1, x.shape[2]))
    if student.shrink > 1:
        factor = tuple(student.shrink if side > 1 else 1 for side in x.shape[2:])
        x = builder.shrink("resolution", x, (factor[0], factor[1]))
    return x


def _window(x: Value, size: int) -> tuple[int, int]:
    return (size if x.shape[2] > 1 else 1, size if x.shape[3] > 1 else 1)


def _halving(x: Value) -> tuple[int, int]:
    """Stride 2 along each side that is long enough."""
    height, width = (2 if side > _SMALLEST_SIDE else 1 for side in x.shape[2:])
    return height, width


def _separable(builder: Builder, name: str, x: Value, channels: int, stride: tuple[int, int]):
    x = builder.convolution(
        f"{name}_depthwise", x, x.shape[1], _window(x, 3), stride=stride, depthwise=True
    )
    return builder.convolution(f"{name}_pointwise", x, channels, (1, 1))


def _ds_cnn(builder: Builder, student: Student) -> Value:
    x = _as_map(builder, student)
    x = builder.convolution("stem", x, student.width, _window(x, 5), stride=_halving(x))
    for index in range(student.depth + 1):
        stride = _halving(x) if index == 0 else (1, 1)
        x = _separable(builder, f"block{index}", x, student.width, stride)
    return builder.head(x, student.outputs)


def _mobilenet(builder: Builder, student: Student) -> Value:
    x = _as_map(builder, student)
    x = builder.convolution("stem", x, student.width, _window(x, 3), stride=_halving(x))
    for stage in range(_STAGES):
        for index in range(student.depth):
            stride = _halving(x) if index == 0 and stage > 0 else (1, 1)
            name = f"stage{stage}_block{index}"
            x = _separable(builder, name, x, student.width * 2**stage, stride)
    return builder.head(x, student.outputs)


def _mcunet(builder: Builder, student: Student) -> Value:
    x = _as_map(builder, student)
    x = builder.convolution("stem", x, student.width, _window(x, 3), stride=_halving(x))
    for stage in range(_STAGES - 1):
        channels = student.width * (stage + 1)
        for index in range(student.depth):
            stride = _halving(x) if index == 0 else (1, 1)
            size = (3, 5, 7)[(stage + index) % 3]
            x = _inverted(builder, f"stage{stage}_block{index}", x, channels, size, stride)
    return builder.head(x, student.outputs)


def _inverted(
    builder: Builder, name: str, x: Value, channels: int, size: int, stride: tuple[int, int]
) -> Value:
    """Expand by three, filter each channel, project without an activation, add what came in."""
    residual = stride == (1, 1) and channels == x.shape[1]
    builder.keep(x if residual else None)
    wide = builder.convolution(f"{name}_expand", x, 3 * x.shape[1], (1, 1))
    wide = builder.convolution(
        f"{name}_depthwise", wide, wide.shape[1], _window(x, size), stride=stride, depthwise=True
    )
    y = builder.convolution(f"{name}_project", wide, channels, (1, 1), activation=False)
    builder.keep(None)
    return builder.add(f"{name}_sum", y, x) if residual else y


def _mlp(builder: Builder, student: Student) -> Value:
    x = builder.input
    for index in range(student.depth):
        x = builder.dense(f"hidden{index}", x, student.width, activation=True)
    narrow = max(1, min(8, prod(student.input_shape) // 2))
    if student.outputs == student.input_shape[1]:
        x = builder.dense("narrow", x, narrow, activation=True)
        x = builder.dense("widen", x, student.width, activation=True)
    return builder.dense("head", x, student.outputs, activation=False)


_FAMILIES: dict[str, Callable[[Builder, Student], Value]] = {
    "ds_cnn": _ds_cnn,
    "mobilenet": _mobilenet,
    "mcunet": _mcunet,
    "mlp": _mlp,
}
