"""The compiled form, linearised: what runs, in which order, on which bytes.

A `Program` is read off the lowered Relax module once and from then on is the only thing the arena
planner, the C generator, the host runner, the numpy twin and the device harness look at.

    steps      kernel calls in execution order (one layer of the model each)
    buffers    every activation: shape, dtype, first and last step, place
    constants  weights, biases, multipliers, tables; shared when equal
    functions  one TIR PrimFunc a distinct kernel, still to be lowered to an object
    assembly   (symbol, text) of the routines that `passes.specialize` brought in for one device
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from edgecompress.errors import BadData
from edgecompress.records import TensorSpec

if TYPE_CHECKING:
    import tvm


class Kernel(Protocol):
    """One integer operator with its shapes and quantization parameters: a frozen dataclass a file.

    `compute` (TE), `schedule` (TIR) and `reference` (numpy twin) live side by side and agree on
    every bit.
    """

    @property
    def op(self) -> str:
        """The operator's name in reports: conv2d, depthwise_conv2d, dense, ..."""
        ...

    @property
    def macs(self) -> int: ...

    def compute(self, *tensors: Any) -> Any:
        """TE expression of the output from the activation and constant tensors."""
        ...

    def schedule(self, schedule: Any, function_name: str) -> None:
        """Schedules the PrimFunc in place; the default is LLVM's own choice."""
        ...

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """The same numbers in numpy: same argument order as `compute`."""
        ...


@dataclass(frozen=True)
class Argument:
    """A kernel's pointer argument: `constants[int(name)]`, else `buffers[name]`.

    "scratch" is working memory the step alone uses: what is in it before does not matter.
    """

    kind: Literal["buffer", "constant", "scratch"]
    name: str


@dataclass(frozen=True)
class Overlap:
    """A step's output may share memory with argument `argument`, if that dies at the step.

    `distance_bytes` 0: exactly in place, no other way. Negative: the output starts at least that
    many bytes before the input. Apart is always allowed.
    """

    argument: int
    distance_bytes: int = 0


@dataclass(frozen=True)
class Step:
    """One kernel call. The last argument is the output; the others come in `compute`'s order.

    `kernel` is None for a float operator TVM legalised itself (no numpy twin). `overlaps` belongs
    to the code in `function`: whoever replaces the function replaces it too. `implementation`
    describes the instruction set's own code where `function` is that; empty means TIR. `codec`
    names how its weights are stored in flash where they are not plain int8, with the bytes that
    saves and the instructions that takes, predicted.
    """

    name: str
    function: str
    arguments: tuple[Argument, ...]
    kernel: Kernel | None
    op: str
    macs: int = 0
    overlaps: tuple[Overlap, ...] = ()
    implementation: str = ""
    codec: str = ""
    codec_saved_bytes: int = 0
    codec_instructions: int = 0

    @property
    def output(self) -> str:
        return self.arguments[-1].name

    @property
    def is_float(self) -> bool:
        return self.kernel is None


@dataclass(frozen=True)
class Buffer:
    """An activation or a step's scratch, in the arena at `offset_bytes`.

    first_step is the step that writes it (-1 for the model input), last_step the last that reads
    it (len(steps) for the model output). A reshape has no step: it is an alias of its source.
    A buffer with `view_of` set is a part of that one's bytes (`memory.views`).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    size_bytes: int
    first_step: int
    last_step: int
    location: Literal["arena"] = "arena"
    offset_bytes: int = 0
    view_of: str = ""
    view_offset_bytes: int = 0


@dataclass(frozen=True)
class Arena:
    """The part of the arena that one memory region holds.

    A program's arenas share one range of offsets: this one begins at `offset_bytes`, where the one
    before it ends. No buffer crosses from one into the next.
    """

    region: str
    offset_bytes: int
    size_bytes: int


@dataclass(frozen=True)
class Program:
    """`arenas` is empty until `memory.regions` has chosen memories for a device that has several.

    `arena_bytes` is the size of all of them. `constant_regions` names the flash region of each
    constant ("" for the first) where the first has no room for all, and is empty otherwise.
    """

    name: str
    steps: tuple[Step, ...]
    buffers: dict[str, Buffer]
    constants: tuple[np.ndarray, ...]
    functions: tvm.IRModule
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    input_buffers: tuple[str, ...]
    output_buffers: tuple[str, ...]
    requantize: Literal["smmla", "tflite"] = "smmla"
    arena_bytes: int = 0
    arena_alignment: int = 16
    float_layers: tuple[str, ...] = field(default=())
    assembly: tuple[tuple[str, str], ...] = ()
    arenas: tuple[Arena, ...] = ()
    constant_regions: tuple[str, ...] = ()

    @property
    def macs(self) -> int:
        return sum(step.macs for step in self.steps)

    @property
    def has_functions(self) -> bool:
        """Whether any step runs TIR; false where routines do all the work."""
        return bool(self.functions.functions)

    @property
    def constant_bytes(self) -> int:
        return sum(array.nbytes for array in self.constants)


def quantize_input(program: Program, x: np.ndarray, index: int = 0) -> np.ndarray:
    """A real-valued sample in the source's layout as the bytes the device takes.

    Args:
        x: float array of the source model's input shape (NCHW for ONNX), batch 1; a missing batch
            axis is added.

    Returns:
        C-contiguous array of `program.inputs[index]`'s shape and dtype: round(x / scale) +
        zero_point (half to even, as ONNX QuantizeLinear), saturated.

    Raises:
        BadData: the shape is not the input's.
    """
    spec = program.inputs[index]
    source_shape = _source_shape(spec)
    array = np.asarray(x)
    if array.shape == source_shape[1:]:
        array = array[None]
    if array.shape != source_shape:
        raise BadData(f"Input '{spec.name}' takes {source_shape}; the sample is {array.shape}.")
    if spec.scale is not None:
        quotient = np.round(array.astype(np.float32) / np.float32(spec.scale))
        limits = np.iinfo(spec.dtype)
        array = np.clip(quotient + spec.zero_point, limits.min, limits.max)
    if spec.source_layout == "NCHW":
        array = array.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(array.astype(spec.dtype))


def dequantize_output(program: Program, q: np.ndarray, index: int = 0) -> np.ndarray:
    """What the device wrote, as float32 in the source's layout and shape.

    Raises:
        BadData: the element count is not the output's.
    """
    spec = program.outputs[index]
    array = np.asarray(q)
    if array.size != int(np.prod(spec.shape)):
        raise BadData(
            f"Output '{spec.name}' has {int(np.prod(spec.shape))} elements, not {array.size}."
        )
    array = array.reshape(spec.shape)
    if spec.source_layout == "NCHW":
        array = array.transpose(0, 3, 1, 2)
    if spec.scale is None:
        return np.ascontiguousarray(array)
    real = (array.astype(np.float32) - np.float32(spec.zero_point)) * np.float32(spec.scale)
    return np.ascontiguousarray(real)


def _source_shape(spec: TensorSpec) -> tuple[int, ...]:
    if spec.source_layout != "NCHW":
        return spec.shape
    batch, height, width, channels = spec.shape
    return batch, channels, height, width
