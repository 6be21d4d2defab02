"""The flow line itself: planning rounds closed by the linked image, and the result they leave.

`fit_rounds` repeats plan -> realize -> quantize -> link until what was linked fits; each finished
stage is checkpointed. `image_result` is the part after the deployable.
"""

from __future__ import annotations

import hashlib
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgecompress.deploy import (
    Deployed,
    deploy,
    device_inputs,
    device_top1,
    estimate_time,
    real_inputs,
)
from edgecompress.errors import DoesNotFit
from edgecompress.progress import Progress
from edgecompress.records import (
    Accuracy,
    Budget,
    FlashUse,
    Plan,
    RamUse,
    Result,
    SizeReport,
    SourceComparison,
)
from edgecompress.units import format_bytes

if TYPE_CHECKING:
    import onnx

    from edgecompress.model.data import Splits
    from edgecompress.model.load import Source
    from edgecompress.target import DeviceProfile
    from edgecompress.workspace import Checkpoints

Requantize = Literal["smmla", "tflite"]
Precision = Literal["int8", "float32"]
Effort = Literal["fast", "balanced"]

MAX_ROUNDS = 3
CALIBRATION_SAMPLES = 256
HOST_SAMPLES = 1000
DEVICE_SAMPLES = 20
_PACKAGES = ("edgecompress", "torch", "apache-tvm", "onnx", "numpy", "ziglang", "unicorn")


class Stopwatch:
    """Passes progress on and remembers the seconds each stage took."""

    def __init__(self, progress: Progress):
        self.progress = progress
        self.seconds: dict[str, float] = {}
        self._stage = ""
        self._since = time.monotonic()

    def stage(self, name: str, total: int | None = None) -> None:
        self._close()
        self._stage = name
        self.progress.stage(name, total)

    def advance(self, done: int = 1) -> None:
        self.progress.advance(done)

    def note(self, message: str) -> None:
        self.progress.note(message)

    def _close(self) -> None:
        now = time.monotonic()
        if self._stage:
            spent = self.seconds.get(self._stage, 0.0) + now - self._since
            self.seconds[self._stage] = round(spent, 2)
        self._since = now

    def finish(self) -> dict[str, float]:
        self._close()
        self._stage = ""
        return self.seconds


def fit_rounds(
    source: Source,
    splits: Splits,
    profile: DeviceProfile,
    budget: Budget,
    folder: Path,
    checkpoints: Checkpoints,
    clock: Stopwatch,
    *,
    effort: Effort,
    seed: int,
    requantize: Requantize,
    device: str | None,
    replayed: Plan | None,
) -> Result:
    """Plans, builds and measures until the linked image is within the budget.

    Raises:
        DoesNotFit: no plan fits, or MAX_ROUNDS images in a row came out over budget.
    """
    from edgecompress.plan.cost import corrections_from

    corrections: dict[str, float] = {}
    for attempt in range(MAX_ROUNDS):
        plan, deployable = _compressed(
            source, splits, profile, budget, checkpoints, clock, corrections,
            effort=effort, seed=seed, replayed=replayed, attempt=attempt,
        )  # fmt: skip
        (folder / "plan.json").write_text(plan.to_json())
        result = image_result(
            deployable, source, splits, profile, budget, folder, clock, command="fit",
            requantize=requantize, precision="int8", allow_float=False, dump=None,
            device=device, seed=seed, plan=plan,
        )  # fmt: skip
        if result.fits:
            return result
        if replayed is not None:
            break
        corrections = corrections_from(
            plan.predicted,
            SizeReport(flash_sections=result.flash.sections, ram_parts=result.ram.parts),
        )
        clock.note("The linked image is over budget; planning again with its measured sizes.")
    raise _over_budget(result, budget)


def _compressed(
    source: Source,
    splits: Splits,
    profile: DeviceProfile,
    budget: Budget,
    checkpoints: Checkpoints,
    clock: Stopwatch,
    corrections: dict[str, float],
    *,
    effort: Effort,
    seed: int,
    replayed: Plan | None,
    attempt: int,
) -> tuple[Plan, onnx.ModelProto]:
    """The plan and the deployable it leads to, each taken from its checkpoint when there is one."""
    import onnx

    from edgecompress.compress.quantize import quantize
    from edgecompress.model.trainable import to_trainable
    from edgecompress.plan.search import make_plan, realize

    trainable = to_trainable(source)
    saved = checkpoints.load(f"plan-{attempt}.json")
    if replayed is not None:
        plan = replayed
    elif saved is not None:
        plan = Plan.from_json(saved)
        clock.note("Resuming: the plan was already made.")
    else:
        clock.stage("Plan")
        plan = make_plan(
            trainable, splits, profile, budget, model_hash=source.hash, effort=effort,
            seed=seed, corrections=corrections, progress=clock,
        )  # fmt: skip
        checkpoints.save(f"plan-{attempt}.json", plan.to_json().encode())
    saved = checkpoints.load(f"model-{attempt}.onnx")
    if saved is not None:
        clock.note("Resuming: the compressed model was already trained.")
        return plan, onnx.load_model_from_string(saved)
    clock.stage("Compress and fine-tune")
    compressed = realize(trainable, plan, splits, clock)
    clock.stage("Quantize to int8")
    deployable = quantize(compressed, splits.train.x[:CALIBRATION_SAMPLES], name=source.name)
    checkpoints.save(f"model-{attempt}.onnx", deployable.SerializeToString(deterministic=True))
    return plan, deployable


def image_result(
    deployable: onnx.ModelProto | bytes,
    source: Source,
    splits: Splits | None,
    profile: DeviceProfile,
    budget: Budget,
    folder: Path,
    clock: Stopwatch,
    *,
    command: Literal["fit", "compile"],
    requantize: Requantize,
    precision: Precision,
    allow_float: bool,
    dump: Path | None,
    device: str | None,
    seed: int,
    plan: Plan | None = None,
) -> Result:
    """Builds, verifies and measures the image in `folder` and gathers everything into a Result."""
    from edgecompress.plan.cost import predict_program

    content = (
        deployable if isinstance(deployable, bytes)
        else deployable.SerializeToString(deterministic=True)
    )  # fmt: skip
    suffix = "tflite" if isinstance(deployable, bytes) else "onnx"
    (folder / f"model.{suffix}").write_bytes(content)
    model_hash = hashlib.sha256(content).hexdigest()
    where = device or _default_device(profile)
    deployed = deploy(
        deployable, profile, folder, name=source.name, model_hash=model_hash,
        samples=None if splits is None else splits.test.x, requantize=requantize,
        precision=precision, allow_float=allow_float, dump=dump, device=where, progress=clock,
    )  # fmt: skip
    predicted = plan.predicted if plan else predict_program(deployed.program, profile)
    clock.stage("Compare with the source")
    accuracy, against_source = _compare(deployed, source, splits, folder, profile, where, clock)
    size = deployed.size
    return Result(
        command=command,
        model=source.name,
        target=profile.name,
        fits=_within(size, budget),
        accuracy=accuracy,
        flash=FlashUse(
            used_bytes=size.flash_bytes,
            budget_bytes=budget.flash_bytes,
            predicted_bytes=predicted.flash_bytes,
            sections=size.flash_sections,
        ),  # fmt: skip
        ram=RamUse(
            used_bytes=size.ram_bytes,
            budget_bytes=budget.ram_bytes,
            predicted_bytes=predicted.ram_bytes,
            parts=size.ram_parts,
        ),  # fmt: skip
        instructions=deployed.measurement.instructions,
        macs=deployed.program.macs,
        device=deployed.measurement.device,
        label=deployed.measurement.label,
        latency_us=deployed.measurement.latency_us,
        time_estimate=estimate_time(profile, deployed.measurement.instructions),
        verified=deployed.verification,
        against_source=against_source,
        float_layers=deployed.program.float_layers,
        layers=deployed.manifest.layers,
        plan=plan,
        hashes={
            "source": source.hash,
            "deployable": model_hash,
            "firmware": deployed.manifest.firmware_hash,
            **({} if splits is None else {"data": splits.hash}),
        },  # fmt: skip
        seeds={"seed": seed},
        versions=_versions(),
        seconds=clock.finish(),
    )


def _compare(
    deployed: Deployed,
    source: Source,
    splits: Splits | None,
    folder: Path,
    profile: DeviceProfile,
    device: str,
    clock: Stopwatch,
) -> tuple[Accuracy, SourceComparison]:
    """Source, host and device on the same test inputs; random inputs when the user gave none.

    Without labels the accuracy is the agreement with the source's own top-1.
    """
    from edgecompress.lower.program import dequantize_output

    labelled = splits is not None and splits.test.y is not None
    inputs = device_inputs(
        deployed.program, None if splits is None else splits.test.x, HOST_SAMPLES
    )
    real = real_inputs(deployed.program, inputs)
    if splits is not None:
        real = splits.test.x[: len(inputs)]
    expected = _source_outputs(source, real)
    stored = deployed.host.run_batch(inputs)
    made = np.concatenate([dequantize_output(deployed.program, row[None]) for row in stored])
    errors = np.abs(made.reshape(expected.shape) - expected)
    classes = expected.ndim == 2 and expected.shape[1] > 1
    agreement = None
    if classes:
        agreement = 100.0 * float(np.mean(made.argmax(1) == expected.argmax(1)))
    comparison = SourceComparison(
        reference="LiteRT reference kernels" if source.tflite is not None else "onnxruntime",
        samples=len(inputs),
        max_abs_error=float(errors.max()),
        mean_abs_error=float(errors.mean()),
        top1_agreement_percent=agreement,
    )
    if not classes or splits is None:
        return Accuracy(), comparison
    labels = splits.test.y[: len(inputs)] if labelled else expected.argmax(1)
    device_labels = labels[:DEVICE_SAMPLES]
    on_device = device_top1(
        deployed, folder, profile, device, inputs[:DEVICE_SAMPLES], device_labels, clock
    )
    return Accuracy(
        source=_top1(expected, labels),
        deployed=_top1(made, labels),
        device=on_device,
        metric="top-1 %" if labelled else "agreement with the source, %",
        samples={
            "source": len(labels), "deployed": len(labels), "device": len(device_labels),
        },
    ), comparison  # fmt: skip


def _source_outputs(source: Source, x: np.ndarray) -> np.ndarray:
    from edgecompress.model.reference import run_onnx, run_tflite

    if source.tflite is not None:
        return run_tflite(source.tflite, x)
    assert source.onnx is not None
    return run_onnx(source.onnx, x)


def _top1(outputs: np.ndarray, labels: np.ndarray) -> float:
    return 100.0 * float(np.mean(outputs.argmax(1) == labels))


def _within(size: SizeReport, budget: Budget) -> bool:
    flash_fits = budget.flash_bytes is None or size.flash_bytes <= budget.flash_bytes
    ram_fits = budget.ram_bytes is None or size.ram_bytes <= budget.ram_bytes
    return flash_fits and ram_fits


def _over_budget(result: Result, budget: Budget) -> DoesNotFit:
    """The linked image's own words: which budget, by how much, and what takes the most."""
    flash = budget.flash_bytes is not None and result.flash.used_bytes > budget.flash_bytes
    name, use, parts = (
        ("flash", result.flash, result.flash.sections)
        if flash
        else ("RAM", result.ram, result.ram.parts)
    )
    assert use.budget_bytes is not None
    largest = max(parts, key=lambda part: parts[part])
    over = use.used_bytes - use.budget_bytes
    return DoesNotFit(
        f"The linked image needs {format_bytes(use.used_bytes)} of {name}; the budget is "
        f"{format_bytes(use.budget_bytes)} ({format_bytes(over)} over). Largest part: {largest}, "
        f"{format_bytes(parts[largest])}.",
        resource=name.lower(),
        needed=use.used_bytes,
        limit=use.budget_bytes,
        next_step=f"Raise --{name.lower()} to {format_bytes(use.used_bytes)} or start smaller.",
    )


def _default_device(profile: DeviceProfile) -> str:
    """The virtual board where Unicorn has the core, QEMU where only it does, else a process."""
    if profile.kind != "mcu":
        return "process"
    return "virtual" if profile.virtual is not None else "qemu"


def _versions() -> dict[str, str]:
    return {package: metadata.version(package) for package in _PACKAGES}
