"""How often each buffer and constant is read and written in one inference: an estimate.

It orders them by heat for `memory.regions` and says nothing about a layer's time. Beside counts on
the virtual board, MLPerf Tiny, 8-bit models on the DSP kernels: the scratch of convolutions, which
takes nine tenths of the traffic, within 15 %; maps within a factor of 2 or so.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgecompress.lower.program import Buffer, Program, Step

_WORD_BYTES = 4
_TILE_CHANNELS = 4
"""Output channels that share one loaded input word in the matrix kernels."""
_TILE_PIXELS = 3
"""Output pixels that share one loaded word of weights."""


def buffer_accesses(program: Program, buffers: Sequence[Buffer]) -> list[float]:
    """Loads and stores of each buffer, views counted with their parent."""
    total: dict[str, float] = {}

    def count(name: str, accesses: float) -> None:
        name = program.buffers[name].view_of or name
        total[name] = total.get(name, 0.0) + accesses

    for step in program.steps:
        scratch = [item.name for item in step.arguments if item.kind == "scratch"]
        inputs = [item.name for item in step.arguments[:-1] if item.kind == "buffer"]
        for name in scratch:
            count(name, _scratch_accesses(program, step))
        for index, name in enumerate(inputs):
            size = program.buffers[name].size_bytes
            if index:
                count(name, size / _WORD_BYTES)
            elif scratch:
                count(name, max(size, _window_bytes(program, step) / _WORD_BYTES))
            else:
                count(name, max(size / _WORD_BYTES, _words_multiplied(step)))
        count(step.output, program.buffers[step.output].size_bytes)  # stored byte by byte
    return [total.get(item.name, 0.0) for item in buffers]


def constant_accesses(program: Program) -> list[float]:
    """Loads of each constant: once for every tile of output pixels; a dense layer's once."""
    reads = [0.0] * len(program.constants)
    for step in program.steps:
        tiles = max(1.0, _positions(program, step) / _TILE_PIXELS)
        for argument in step.arguments:
            if argument.kind == "constant":
                size = program.constants[int(argument.name)].nbytes
                reads[int(argument.name)] += tiles * size / _WORD_BYTES
    return reads


def _scratch_accesses(program: Program, step: Step) -> float:
    """Filled with 16-bit windows of the input and read, two at a time, once a multiplication."""
    if _is_depthwise(step):
        return step.macs / _TILE_CHANNELS
    return _window_bytes(program, step) + step.macs / _TILE_CHANNELS


def _words_multiplied(step: Step) -> float:
    """Input words loaded where nothing is copied first."""
    shared = 1 if _is_depthwise(step) else _TILE_CHANNELS
    return step.macs / shared / _WORD_BYTES


def _window_bytes(program: Program, step: Step) -> float:
    """Every input byte once for each window it lies in."""
    channels = program.buffers[step.output].shape[-1]
    return 0.0 if _is_depthwise(step) else step.macs / max(1, channels)


def _positions(program: Program, step: Step) -> int:
    """Output pixels of a weighted step; 1 where nothing is multiplied."""
    output = program.buffers[step.output]
    return output.size_bytes // max(1, output.shape[-1]) if step.macs else 1


def _is_depthwise(step: Step) -> bool:
    return step.op.startswith("depthwise")
