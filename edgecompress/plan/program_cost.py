"""What the image of an already lowered program will weigh: no model graph and no torch needed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from edgecompress.lower.memory.lifetimes import arena_buffers, peak_live
from edgecompress.lower.memory.overlap import allowances
from edgecompress.lower.program import Program, Step
from edgecompress.plan.code_size import code_table, kernel_key
from edgecompress.records import Prediction, SizeReport
from edgecompress.target.schema import DeviceProfile

ALIGNMENT_BYTES = 16
"""Of every activation in the arena and every constant in flash (`Program.arena_alignment`)."""

Corrections = Mapping[str, float]
"""Part ("flash.kernels", "ram.stack") -> measured bytes over predicted bytes."""


def predict_program(
    program: Program,
    profile: DeviceProfile,
    library: Mapping[str, int] | None = None,
    corrections: Corrections | None = None,
) -> Prediction:
    """Weights and arena as the program says; code, runtime and stack from the code table.

    Args:
        program: the device's, placed.
        library: `link.library_sizes` of it, in place of the table's code sizes.
    """
    buffers = arena_buffers(program)
    lifetimes = [(item.size_bytes, item.first_step, item.last_step) for item in buffers]
    distinct = {(str(a.dtype), a.shape, a.tobytes()): a.nbytes for a in program.constants}
    return assemble(
        profile,
        kernels=list({step.function: _key(step) for step in program.steps}.values()),
        names=[step.name for step in program.steps],
        constant_bytes=sum(aligned(size) for size in distinct.values()),
        arena_bytes=program.arena_bytes,
        peak=max(peak_live(lifetimes, allowances(program, buffers))[0], 0),
        macs=program.macs,
        library=library,
        corrections=corrections,
        decoding_instructions=sum(step.codec_instructions for step in program.steps),
    )


def assemble(
    profile: DeviceProfile,
    *,
    kernels: Sequence[str],
    names: Sequence[str],
    constant_bytes: int,
    arena_bytes: int,
    peak: int,
    macs: int,
    library: Mapping[str, int] | None = None,
    corrections: Corrections | None = None,
    unplaced_bytes: int = 0,
    decoding_instructions: int = 0,
) -> Prediction:
    """The one account of an image: the table's rows for its kernels and the sizes known exactly."""
    table = code_table(profile)
    flash = {
        "weights": constant_bytes,
        "kernels": sum(table.kernel(key) for key in kernels),
        "model": table.model_bytes + table.model_step_bytes * len(names),
        "runtime": table.runtime_bytes,
        "vectors": table.vectors_bytes,
        "data": table.data_bytes,
        **(library or {}),
    }
    ram = {
        "arena": arena_bytes,
        "scratch": 0,
        "static": table.static_bytes,
        "io": 0,
        "stack": table.stack_bytes,
    }
    flash = _corrected("flash", flash, corrections or {})
    ram = _corrected("ram", ram, corrections or {})
    return Prediction(
        flash_bytes=sum(flash.values()),
        ram_bytes=sum(ram.values()),
        flash_parts=flash,
        ram_parts=ram,
        peak_step=names[peak] if names else "",
        macs=macs,
        unplaced_bytes=unplaced_bytes,
        decoding_instructions=decoding_instructions,
    )


def _key(step: Step) -> str:
    window = getattr(step.kernel, "window", None)
    if step.op != "conv2d" or window is None:
        return step.op
    inputs = window.input_shape[3] // getattr(step.kernel, "groups", 1)
    return kernel_key(step.op, math.prod(window.size), inputs)


def aligned(size: int) -> int:
    """The next multiple of the alignment, in bytes."""
    return -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def corrections_from(
    predicted: Prediction, measured: SizeReport, previous: Corrections | None = None
) -> dict[str, float]:
    """Factors that would have made a prediction right, for the next one.

    Args:
        previous: the corrections `predicted` was made with; the new ones replace them.
    """
    pairs = (
        ("flash", predicted.flash_parts, measured.flash_sections),
        ("ram", predicted.ram_parts, measured.ram_parts),
    )
    factors = dict(previous or {})
    for kind, guesses, real in pairs:
        for part, guess in guesses.items():
            if guess > 0 and part in real:
                key = f"{kind}.{part}"
                factors[key] = real[part] / guess * factors.get(key, 1.0)
    return factors


def _corrected(kind: str, parts: dict[str, int], corrections: Corrections) -> dict[str, int]:
    return {
        part: round(size * corrections.get(f"{kind}.{part}", 1.0)) for part, size in parts.items()
    }
