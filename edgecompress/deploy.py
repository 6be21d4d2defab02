"""Deployable in, image out: lowered, linked, verified layer by layer, measured on the device.

The half of the flow that `fit` and `compile` share:

    deployable -> Program -> Image -> Verification -> Measurement
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgecompress.errors import DoesNotFit, VerificationFailed
from edgecompress.progress import Progress
from edgecompress.records import (
    CycleEstimate,
    ImageManifest,
    Measurement,
    Optimize,
    PatchReport,
    SizeReport,
    TimeEstimate,
    Verification,
)

if TYPE_CHECKING:
    import onnx

    from edgecompress.lower.passes.choice import Goal
    from edgecompress.lower.passes.patch import Fitted
    from edgecompress.lower.program import Program
    from edgecompress.target import DeviceProfile
    from edgecompress.verify.host import HostModel

VERIFY_SAMPLES = 3

Requantize = Literal["smmla", "tflite"]
Precision = Literal["int8", "float32"]


@dataclass(frozen=True)
class DeployOptions:
    """How the image is made and where it runs.

    `device` is what `--device` takes; `dump` receives the IR after each pass; `optimize` weighs
    the kernels' flash against their time; over `flash_limit_bytes` or the device's own flash bytes
    become dearer, see `lower.passes.flash_limit`; `ram_limit_bytes` is what an arena in several
    memories should stay within.
    """

    device: str
    requantize: Requantize = "smmla"
    precision: Precision = "int8"
    allow_float: bool = False
    dump: Path | None = None
    optimize: Optimize = "balanced"
    ram_limit_bytes: int | None = None
    flash_limit_bytes: int | None = None


@dataclass(frozen=True)
class Deployed:
    """A linked image with everything that was observed of it.

    `program` is the portable one, which the host runs; `image_program` is what was linked, and
    differs in kernels only. `patches` says which layers run in stripes because RAM demanded it;
    where no stripes would do, `nearest_patch` is what would help most.
    """

    program: Program
    image_program: Program
    host: HostModel
    manifest: ImageManifest
    verification: Verification
    measurement: Measurement
    size: SizeReport
    patches: tuple[PatchReport, ...] = ()
    nearest_patch: PatchReport | None = None


def deploy(
    model: onnx.ModelProto | bytes,
    profile: DeviceProfile,
    folder: Path,
    *,
    name: str,
    model_hash: str,
    samples: np.ndarray | None,
    options: DeployOptions,
    progress: Progress,
) -> Deployed:
    """Compiles, links, runs and checks one model; writes the image into `folder`.

    Args:
        samples: [n, ...] float inputs in the source model's layout for the verification; None
            draws seeded random inputs over the whole int8 range.

    Raises:
        DoesNotFit: the linker ran out of a memory region.
        VerificationFailed: twin, host and device disagree; the first element is named.
    """
    from edgecompress.device.harness import open_device
    from edgecompress.lower.passes.patch import least_memory, patch_sentence
    from edgecompress.lower.pipeline import lower
    from edgecompress.verify.compare import verify
    from edgecompress.verify.host import HostModel

    progress.stage("Compile with TVM")
    program = lower(
        model,
        name=name,
        profile=profile,
        requantize=options.requantize,
        precision=options.precision,
        allow_float=options.allow_float,
        dump=options.dump,
    )
    progress.stage("Link the image")
    if profile.kind == "host":
        progress.note("A target's very first build compiles its C library, which takes a minute.")
    # the device runs its instruction set's own kernels, twin and host the portable ones
    fitted, manifest = _built(program, profile, folder, model_hash, options)
    program, image_program = fitted.program, fitted.image_program
    if fitted.patches:
        progress.note(patch_sentence(fitted.patches))
    nearest = None if fitted.fits else least_memory(program, profile, options.ram_limit_bytes)
    host = HostModel(program)
    inputs = device_inputs(program, samples, VERIFY_SAMPLES)
    progress.stage("Verify: numpy twin = host = device")
    with open_device(folder, profile, options.device) as session:
        verification = verify(program, host, session, manifest, inputs)
        if not verification.agrees:
            raise VerificationFailed(_disagreement(verification))
        progress.stage("Measure on the device")
        measurement = session.measure(inputs[0], runs=1, warmup=0)
    ram_parts = dict(manifest.size.ram_parts)
    if measurement.stack_high_water_bytes is not None:
        ram_parts["stack"] = measurement.stack_high_water_bytes
    else:
        ram_parts["stack_reserve"] = ram_parts.pop("stack")  # nobody measured it
    size = SizeReport(flash_sections=manifest.size.flash_sections, ram_parts=ram_parts)
    return Deployed(
        program, image_program, host, manifest, verification, measurement, size,
        fitted.patches, nearest,
    )  # fmt: skip


def _built(
    program: Program, profile: DeviceProfile, folder: Path, model_hash: str, options: DeployOptions
) -> tuple[Fitted, ImageManifest]:
    """The image in `folder`, its weights encoded as far as the flash demands.

    Raises:
        DoesNotFit: the linker ran out of a memory region.
    """
    from edgecompress.link.image import build_image
    from edgecompress.lower.passes.flash_limit import within_flash
    from edgecompress.lower.passes.patch import patch_to_fit
    from edgecompress.lower.passes.specialize import Offers

    built: list[Fitted] = []
    offers = Offers(profile)

    def attempt(goal: Goal) -> tuple[tuple[Fitted, ImageManifest | DoesNotFit], int]:
        fitted = patch_to_fit(program, profile, options.ram_limit_bytes, goal, offers)
        built.append(fitted)
        try:
            found = build_image(fitted.image_program, profile, folder, model_hash=model_hash)
        except DoesNotFit as error:
            if error.resource != "flash":
                raise
            return (fitted, error), error.needed - error.limit
        limit = options.flash_limit_bytes
        return (fitted, found), 0 if limit is None else found.size.flash_bytes - limit

    fitted, found = within_flash(program, options.optimize, attempt)
    if isinstance(found, DoesNotFit):
        raise found
    if fitted is not built[-1]:  # a later attempt lies in the folder
        found = build_image(fitted.image_program, profile, folder, model_hash=model_hash)
    return fitted, found


def device_inputs(program: Program, samples: np.ndarray | None, count: int) -> np.ndarray:
    """[n, *input shape] as the image takes them: real samples quantized, else seeded noise."""
    from edgecompress.lower.program import quantize_input

    if samples is not None and len(samples):
        return np.stack([quantize_input(program, sample) for sample in samples[:count]])
    spec = program.inputs[0]
    random = np.random.default_rng(0)
    shape = (count, *spec.shape)
    if spec.dtype == "float32":
        return random.standard_normal(shape).astype(np.float32)
    return random.integers(-128, 128, shape).astype(spec.dtype)


def real_inputs(program: Program, inputs: np.ndarray) -> np.ndarray:
    """Device inputs [n, 1, ...] as [n, ...] in real units and the source model's own layout."""
    spec = program.inputs[0]
    real = inputs.astype(np.float32).reshape(len(inputs), *spec.shape[1:])
    if spec.scale is not None:
        real = (real - spec.zero_point) * np.float32(spec.scale)
    return real.transpose(0, 3, 1, 2) if spec.source_layout == "NCHW" else real


def device_outputs(
    deployed: Deployed,
    folder: Path,
    profile: DeviceProfile,
    device: str,
    inputs: np.ndarray,
    progress: Progress,
) -> np.ndarray:
    """Outputs [n, features] of the image itself on [n, ...] inputs.

    Raises:
        VerificationFailed: an integer output differs from the host build's.
    """
    from edgecompress.device.harness import open_device

    progress.stage("Run test samples on the device", total=len(inputs))
    outputs = []
    with open_device(folder, profile, device) as session:
        for index, sample in enumerate(inputs):
            output = np.asarray(session.infer(sample)).reshape(-1)
            expected = deployed.host.run(sample).reshape(-1)
            if output.dtype == np.int8 and not np.array_equal(output, expected):
                element = int(np.argmax(output != expected))
                raise VerificationFailed(
                    f"Test sample {index}: output element {element} is {output[element]} on the "
                    f"device and {expected[element]} on the host."
                )
            outputs.append(output)
            progress.advance()
    return np.stack(outputs)


def estimate_time(
    profile: DeviceProfile, instructions: int | None, cycles: CycleEstimate | None = None
) -> TimeEstimate | None:
    """A labelled range: the core's cycle model over the blocks executed where it was seen, else
    exact instructions times the core's cycles per instruction."""
    core = profile.core
    if cycles is not None:
        low, high = (count / core.clock_hz * 1e6 for count in (cycles.low, cycles.high))
        return TimeEstimate(low_us=low, high_us=high, clock_hz=core.clock_hz, source=cycles.model)
    if instructions is None or core.cycles_per_instruction is None:
        return None
    low, high = (
        instructions * cycles / core.clock_hz * 1e6 for cycles in core.cycles_per_instruction
    )
    return TimeEstimate(low_us=low, high_us=high, clock_hz=core.clock_hz, source=core.cycles_source)


def _disagreement(verification: Verification) -> str:
    first = verification.first_difference
    assert first is not None
    return (
        f"Layer '{first.layer}', element {list(first.element)}: {first.values[0]:g} on the "
        f"{first.sides[0]}, {first.values[1]:g} on the {first.sides[1]}."
    )
