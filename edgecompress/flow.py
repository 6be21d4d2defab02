"""The flow line after the deployable: linked, verified, measured, and gathered into a result.

`rounds` is the part before it.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgecompress.deploy import Deployed, DeployOptions, deploy, estimate_time
from edgecompress.errors import BadInput
from edgecompress.progress import Progress
from edgecompress.records import (
    Accuracy,
    Budget,
    FlashUse,
    LatencyUse,
    Plan,
    Prediction,
    RamUse,
    Result,
    SizeReport,
    TimeEstimate,
    Verification,
)

if TYPE_CHECKING:
    import onnx

    from edgecompress.model.data import Splits
    from edgecompress.model.load import Source
    from edgecompress.target import DeviceProfile

Effort = Literal["fast", "balanced", "max"]
Command = Literal["fit", "compile"]

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


@dataclass(frozen=True)
class Job:
    """What the user asked for, loaded and checked. `device` is never empty.

    `metric` selects in place of accuracy, `max_accuracy_drop` is in its points (on validation),
    `earlier` a result whose search is continued, `jobs` how many trials run at once,
    `ray` the address of a cluster they run on instead, `log_folder` TensorBoard's.
    """

    command: Command
    source: Source
    splits: Splits | None
    profile: DeviceProfile
    budget: Budget
    seed: int
    effort: Effort
    options: DeployOptions
    clock: Stopwatch
    metric: str | None = None
    max_accuracy_drop: float | None = None
    earlier: Path | None = None
    jobs: int = 1
    ray: str | None = None
    log_folder: Path | None = None


def image_result(
    job: Job, deployable: onnx.ModelProto | bytes, folder: Path, plan: Plan | None = None
) -> Result:
    """Builds, verifies and measures the image in `folder` and gathers everything into a Result."""
    from edgecompress.accuracy import compare_with_source

    clock = job.clock
    model_hash = _write_deployable(deployable, folder)
    if job.profile.kind == "cuda":
        return _package_result(job, deployable, folder, model_hash, plan)
    samples = None if job.splits is None else job.splits.test.x
    deployed = deploy(
        deployable,
        job.profile,
        folder,
        name=job.source.name,
        model_hash=model_hash,
        samples=samples,
        options=replace(
            job.options,
            ram_limit_bytes=job.budget.ram_bytes,
            flash_limit_bytes=job.budget.flash_bytes,
        ),
        progress=clock,
    )
    clock.stage("Compare with the source")
    accuracy, against_source = compare_with_source(
        deployed, job.source, job.splits, folder, job.profile, job.options.device, clock
    )
    result = _gathered(job, deployed, plan, model_hash)
    return result.model_copy(
        update={
            "accuracy": accuracy,
            "against_source": against_source,
            "seconds": clock.finish(),
        }
    )


def _gathered(job: Job, deployed: Deployed, plan: Plan | None, model_hash: str) -> Result:
    """Sizes beside budgets and predictions, costs and provenance of a deployed image."""
    from edgecompress.lower.passes.specialize import trades

    size, measurement = deployed.size, deployed.measurement
    predicted = _predicted(job, deployed) if plan is None else plan.predicted
    estimate = estimate_time(job.profile, measurement.instructions, measurement.cycles)
    latency = _latency_use(job, measurement.latency_us, estimate, predicted)
    return Result(
        command=job.command,
        model=job.source.name,
        target=job.profile.name,
        fits=_within(size, job.budget) and not (latency and latency.used_us > latency.budget_us),
        accuracy=Accuracy(),
        flash=FlashUse(
            used_bytes=size.flash_bytes,
            budget_bytes=job.budget.flash_bytes,
            predicted_bytes=predicted.flash_bytes,
            sections=size.flash_sections,
        ),
        ram=RamUse(
            used_bytes=size.ram_bytes,
            budget_bytes=job.budget.ram_bytes,
            predicted_bytes=predicted.ram_bytes,
            parts=size.ram_parts,
        ),
        latency=latency,
        instructions=measurement.instructions,
        macs=deployed.program.macs,
        device=measurement.device,
        label=measurement.label,
        latency_us=measurement.latency_us,
        time_estimate=estimate,
        verified=deployed.verification,
        float_layers=deployed.program.float_layers,
        optimize=job.options.optimize,
        trades=trades(deployed.program, job.profile),
        layers=deployed.manifest.layers,
        memory=deployed.manifest.memory,
        patches=deployed.patches,
        nearest_patch=deployed.nearest_patch,
        regions=deployed.manifest.size.regions,
        plan=plan,
        hashes={**_hashes(job, model_hash), "firmware": deployed.manifest.firmware_hash},
        seeds={"seed": job.seed},
        versions=_versions(),
    )


def _predicted(job: Job, deployed: Deployed) -> Prediction:
    from edgecompress.link.library_sizes import library_sizes
    from edgecompress.plan.program_cost import predict_program

    library = library_sizes(deployed.image_program, job.profile)
    return predict_program(deployed.image_program, job.profile, library)


def _latency_use(
    job: Job, measured_us: float | None, estimate: TimeEstimate | None, predicted: Prediction
) -> LatencyUse | None:
    """None without a latency budget, or where this device tells nothing about time."""
    from edgecompress.plan.latency import predicted_us

    used_us = estimate.high_us if measured_us is None and estimate is not None else measured_us
    if job.budget.latency_us is None or used_us is None:
        return None
    return LatencyUse(
        used_us=used_us,
        budget_us=job.budget.latency_us,
        predicted_us=predicted_us(predicted, job.profile),
        label="estimate" if measured_us is None else "measured",
    )


def _hashes(job: Job, model_hash: str) -> dict[str, str]:
    data = "" if job.splits is None else job.splits.hash
    return {"source": job.source.hash, "deployable": model_hash, "data": data}


def _package_result(
    job: Job,
    deployable: onnx.ModelProto | bytes,
    folder: Path,
    model_hash: str,
    plan: Plan | None,
) -> Result:
    """A package TVM's own pipeline compiled for a GPU that is not here: nothing is measured."""
    from edgecompress.engines.tvm import build_cuda_package

    if isinstance(deployable, bytes):
        raise BadInput(
            "A .tflite model cannot be compiled for CUDA.", next_step="Give the model as .onnx."
        )
    job.clock.stage("Compile with TVM")
    package = build_cuda_package(deployable, job.profile, folder)
    size = sum(file.stat().st_size for file in package.rglob("*") if file.is_file())
    return Result(
        command=job.command,
        model=job.source.name,
        target=job.profile.name,
        fits=job.budget.flash_bytes is None or size <= job.budget.flash_bytes,
        accuracy=Accuracy(),
        flash=FlashUse(
            used_bytes=size,
            budget_bytes=job.budget.flash_bytes,
            predicted_bytes=None,
            sections={"package": size},
        ),
        ram=RamUse(used_bytes=0, budget_bytes=job.budget.ram_bytes, predicted_bytes=None, parts={}),
        verified=Verification(exact=False, layers=0, samples=0, sides=()),
        plan=plan,
        hashes={"source": job.source.hash, "deployable": model_hash},
        seeds={"seed": job.seed},
        versions=_versions(),
        seconds=job.clock.finish(),
        notes=("compiled, not run: there is no such GPU here",),
    )


def _versions() -> dict[str, str]:
    return {package: metadata.version(package) for package in _PACKAGES}


def _write_deployable(deployable: onnx.ModelProto | bytes, folder: Path) -> str:
    """Writes model.onnx or model.tflite and returns its sha256."""
    if isinstance(deployable, bytes):
        content, name = deployable, "model.tflite"
    else:
        content, name = deployable.SerializeToString(deterministic=True), "model.onnx"
    (folder / name).write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def _within(size: SizeReport, budget: Budget) -> bool:
    flash_fits = budget.flash_bytes is None or size.flash_bytes <= budget.flash_bytes
    ram_fits = budget.ram_bytes is None or size.ram_bytes <= budget.ram_bytes
    return flash_fits and ram_fits
