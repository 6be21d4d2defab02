"""How often a step's code reads and writes each of its buffers and constants: an estimate.

In accesses of one word (4 bytes), which is what the instruction sets' own kernels mostly load and
store. It orders buffers by heat for `memory.regions` and says nothing about a layer's time.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgecompress.lower.memory.views import owner
from edgecompress.lower.program import Buffer, Program, Step

WORD_BYTES = 4
_TILE_CHANNELS = 4
"""Output channels that share one loaded input word in the matrix kernels."""
_TILE_PIXELS = 2
"""Output pixels that share one loaded weight."""


def buffer_accesses(program: Program, buffers: Sequence[Buffer]) -> list[float]:
    """Word accesses of each buffer in one inference, reads and writes together."""
    total = dict.fromkeys((item.name for item in buffers), 0.0)
    for step in program.steps:
        scratch = [item.name for item in step.arguments if item.kind == "scratch"]
        inputs = [item.name for item in step.arguments[:-1] if item.kind == "buffer"]
        read = _read_bytes(program, step)
        for name in scratch:  # filled with the input's windows, then read in its place
            total[name] += (_window_bytes(program, step) + read) / WORD_BYTES
        for index, name in enumerate(inputs):
            size = program.buffers[name].size_bytes
            bulk = _window_bytes(program, step) if scratch else read
            total[owner(program.buffers, name)] += (
                max(size, bulk) if index == 0 else size
            ) / WORD_BYTES
        total[owner(program.buffers, step.output)] += (
            program.buffers[step.output].size_bytes / WORD_BYTES
        )
    return [total[item.name] for item in buffers]


def constant_accesses(program: Program) -> list[float]:
    """Word reads of each constant in one inference.

    Weights of a convolution are read again for every tile of pixels, those of a dense layer once;
    biases, multipliers and tables likewise once a tile.
    """
    reads = [0.0] * len(program.constants)
    for step in program.steps:
        names = [int(item.name) for item in step.arguments if item.kind == "constant"]
        held = sum(program.constants[name].nbytes for name in names)
        if not held:
            continue
        positions = _positions(program, step)
        tiles = max(1.0, positions / _TILE_PIXELS)
        for name in names:
            reads[name] += tiles * program.constants[name].nbytes / WORD_BYTES
    return reads


def _positions(program: Program, step: Step) -> int:
    """Output pixels of a weighted step; 1 for a dense one."""
    if not step.macs:
        return 1
    shape = program.buffers[step.output].shape
    return max(1, program.buffers[step.output].size_bytes // max(1, shape[-1]))


def _window_bytes(program: Program, step: Step) -> float:
    """Every input byte once for each window it lies in."""
    channels = program.buffers[step.output].shape[-1]
    return step.macs / max(1, channels)


def _read_bytes(program: Program, step: Step) -> float:
    """Input bytes loaded: once a multiplication, shared by a tile of output channels."""
    if step.op.startswith("depthwise"):
        return float(step.macs)
    return step.macs / _TILE_CHANNELS
