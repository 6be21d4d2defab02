"""The whole tool from Python: typed, silent, the only thing a script needs.

    model -> plan -> compressed model -> deployable -> image -> verification -> result

`fit` enters that line at its start, `compile_model` at the deployable; `edgecompress.flow` walks
it. `devices` finds boards and `flash` programs them; `profile`, `watch`, `compare` and `verify`
take what was written to a device, see `edgecompress.measuring`. The command line is a thin layer
over these functions.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgecompress.compression import compress_model as compress_model
from edgecompress.deploy import DeployOptions, Precision, Requantize
from edgecompress.errors import BadInput
from edgecompress.explaining import explain_model as explain_model
from edgecompress.flow import Effort, Job, Stopwatch, image_result
from edgecompress.measuring import compare as compare
from edgecompress.measuring import find_boards as find_boards
from edgecompress.measuring import profile as profile
from edgecompress.measuring import profile_fleet as profile_fleet
from edgecompress.measuring import verify as verify
from edgecompress.measuring import watch as watch
from edgecompress.measuring.artifact import default_device
from edgecompress.progress import SILENT, Progress
from edgecompress.records import Optimize, Plan, Result
from edgecompress.reentry import Asked, Kept
from edgecompress.rounds import fit_rounds
from edgecompress.target import DeviceProfile, load_target
from edgecompress.workspace import Checkpoints, OutputFolder

if TYPE_CHECKING:
    from edgecompress.device.discover import Surroundings
    from edgecompress.device.flash import FlashOptions
    from edgecompress.device_records import FlashReport
    from edgecompress.model.data import Splits
    from edgecompress.model.inspect import Inspection
    from edgecompress.model.load import Source


def fit(
    model: str = "demo",
    *,
    data: str | None = None,
    target: str = "cortex-m7",
    flash: str | int | None = None,
    ram: str | int | None = None,
    latency_us: float | None = None,
    effort: Effort = "fast",
    seed: int = 0,
    output: Path | None = None,
    requantize: Requantize = "smmla",
    precision: Precision = "int8",
    optimize: Optimize = "balanced",
    plan: Path | None = None,
    metric: str | None = None,
    max_accuracy_drop: float | None = None,
    earlier: Path | None = None,
    log_folder: Path | None = None,
    jobs: int = 1,
    ray: str | None = None,
    input_shape: tuple[int, ...] | None = None,
    trust: bool = False,
    device: str | None = None,
    progress: Progress = SILENT,
) -> Result:
    """Makes `model` fit `target` and proves it: the main job.

    Args:
        model: "demo", a .onnx/.pt2 path, or "package.module:callable" returning an nn.Module.
        data: .npz, image folder or "package.module:callable"; None only for the demo.
        flash, ram: budgets in place of the profile's ("512K" or bytes).
        optimize: what the device's kernels are chosen for: flash, time, or both.
        plan: a plan.json to replay instead of planning.
        metric: "package.module:callable" to select by: (outputs [N, ...], labels or None) -> a
            number, larger is better; default accuracy, without labels agreement with the source.
        max_accuracy_drop: points of the measure that may be lost on validation data.
        earlier: folder of a result whose measurements and trials are used again.
        log_folder: curves of the fine-tuning for TensorBoard.
        jobs: trials that run at once, in processes.
        ray: run them on this Ray cluster: "auto", "host:port" or "ray://host:port".
        output: folder for the result; default build/<model>-<target>.
        device: where the image runs; default the profile's virtual board, else a process.

    Returns:
        The result, also written to result.json. `fits` is always True: what does not fit raises.

    Raises:
        EdgeCompressError: see `edgecompress.errors` for the tree.
    """
    from edgecompress.model.opcheck import check_operators

    clock = Stopwatch(progress)
    profile = load_target(target)
    source = _load(model, clock, input_shape=input_shape, trust=trust)
    if source.kind == "float" and precision == "int8":
        check_operators(source)
        splits = _data(data, source, clock, seed=seed)
    else:
        splits = _optional_data(data, source, clock, seed=seed)
    replayed = None if plan is None or splits is None else _read_plan(plan, source, splits)
    job = Job(
        command="fit",
        source=source,
        splits=splits,
        profile=profile,
        budget=profile.budget(flash, ram, latency_us),
        seed=seed,
        effort=effort,
        options=DeployOptions(
            device or default_device(profile), requantize, precision, optimize=optimize
        ),
        clock=clock,
        metric=metric,
        max_accuracy_drop=max_accuracy_drop,
        earlier=earlier,
        log_folder=log_folder,
        jobs=jobs,
        ray=ray,
    )
    final = output or _default_output(source.name, profile)
    if source.kind != "float" or precision == "float32":
        return _finish_deployable(job, final)
    checkpoints = Checkpoints(final, _checkpoint_key(job, replayed))
    with OutputFolder(final) as folder:
        result = fit_rounds(job, folder.path, checkpoints, replayed)
        _write_result(result, folder.path)
        asked = Asked(
            model=model, data=data, target=target, flash=flash, ram=ram,
            latency_us=latency_us, effort=effort, seed=seed, optimize=optimize, metric=metric,
            input_shape=input_shape,
        )  # fmt: skip
        Kept(checkpoints, earlier).write(folder.path, asked)
    checkpoints.clear()
    return result


def plan(
    model: str = "demo",
    *,
    data: str | None = None,
    target: str = "cortex-m7",
    flash: str | int | None = None,
    ram: str | int | None = None,
    latency_us: float | None = None,
    effort: Effort = "fast",
    optimize: Optimize = "balanced",
    seed: int = 0,
    output: Path | None = None,
    input_shape: tuple[int, ...] | None = None,
    trust: bool = False,
    progress: Progress = SILENT,
) -> Plan:
    """Chooses what `fit` would do and predicts its cost; compiles nothing.

    Writes plan.json into `output` when it is given.

    Raises:
        DoesNotFit: no choice meets the budget; says which, by how much and where.
    """
    from edgecompress.model.opcheck import check_operators
    from edgecompress.model.trainable import to_trainable
    from edgecompress.plan.last_resort import find_plan

    clock = Stopwatch(progress)
    profile = load_target(target)
    source = _load(model, clock, input_shape=input_shape, trust=trust)
    _require_float(source, "plan")
    check_operators(source)
    splits = _data(data, source, clock, seed=seed)
    clock.stage("Plan")
    chosen = find_plan(
        to_trainable(source),
        splits,
        profile,
        profile.budget(flash, ram, latency_us),
        model_hash=source.hash,
        effort=effort,
        seed=seed,
        optimize=optimize,
        progress=progress,
    ).plan
    if output is not None:
        with OutputFolder(output, marker="plan.json") as folder:
            (folder.path / "plan.json").write_text(chosen.to_json())
    return chosen


def compile_model(
    model: str,
    *,
    target: str = "cortex-m7",
    data: str | None = None,
    flash: str | int | None = None,
    ram: str | int | None = None,
    latency_us: float | None = None,
    output: Path | None = None,
    requantize: Requantize = "smmla",
    precision: Precision = "int8",
    optimize: Optimize = "balanced",
    allow_float: bool = False,
    dump: Path | None = None,
    input_shape: tuple[int, ...] | None = None,
    trust: bool = False,
    device: str | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Result:
    """Compiles a deployable (QDQ .onnx or int8 .tflite; any float model with precision="float32").

    The image is linked, verified bit by bit and measured like `fit`'s. `fits` may be False: the
    result then says by how much, and the image is still there to look at.
    """
    clock = Stopwatch(progress)
    profile = load_target(target)
    source = _load(model, clock, input_shape=input_shape, trust=trust)
    if source.kind == "float" and precision == "int8":
        raise BadInput(
            f"{source.name} is a float model; compile takes an int8 deployable.",
            next_step="Use `edgecompress fit`, or compile --precision float32.",
        )
    if source.kind != "float" and precision == "float32":
        raise BadInput(f"{source.name} is already int8; --precision float32 cannot undo that.")
    where = device or default_device(profile)
    job = Job(
        command="compile",
        source=source,
        splits=_optional_data(data, source, clock, seed=seed),
        profile=profile,
        budget=profile.budget(flash, ram, latency_us),
        seed=seed,
        effort="fast",
        options=DeployOptions(where, requantize, precision, allow_float, dump, optimize),
        clock=clock,
    )
    return _finish_deployable(job, output or _default_output(source.name, profile))


def inspect(
    model: str, *, input_shape: tuple[int, ...] | None = None, trust: bool = False
) -> Inspection:
    """Per-layer shapes, MACs and bytes of any model, and the step with the most live bytes."""
    from edgecompress.model.inspect import inspect_source
    from edgecompress.model.load import load_source

    return inspect_source(load_source(model, input_shape=input_shape, trust=trust))


def devices(*, probe: bool = False) -> Surroundings:
    """What is connected: serial ports, adb devices, debug probes and emulators, and hints.

    Args:
        probe: also open every serial port and ask its firmware; may reset boards.
    """
    from edgecompress.device.discover import look_around

    return look_around(probe=probe)


def flash(
    image_dir: Path,
    *,
    target: str | None = None,
    probe: str | None = None,
    device: str | None = None,
    options: FlashOptions | None = None,
    progress: Progress = SILENT,
) -> FlashReport:
    """Programs a board with a finished image and verifies it.

    Args:
        image_dir: a folder `fit` or `compile_model` wrote.
        target: by default the one the image was made for.
        probe: the debug probe's id, or how it begins.
        device: `serial:PORT` of a boot loader.

    Raises:
        BadInput, DeviceTrouble: see `device.flash.flash`.
    """
    from edgecompress.device.flash import flash as program
    from edgecompress.device.harness import load_manifest

    profile = load_target(target or load_manifest(image_dir).target)
    return program(
        image_dir, profile, probe=probe, port=device, progress=progress, options=options
    )  # fmt: skip


def _load(
    model: str, clock: Stopwatch, *, input_shape: tuple[int, ...] | None, trust: bool
) -> Source:
    from edgecompress.model.load import load_source

    clock.stage("Load the model")
    return load_source(model, input_shape=input_shape, trust=trust)


def _data(data: str | None, source: Source, clock: Stopwatch, *, seed: int) -> Splits:
    from edgecompress.model.data import load_data

    if data is None and source.name != "demo":
        raise BadInput(
            f"{source.name} needs data to calibrate and to measure accuracy with.",
            next_step="Give --data FILE.npz, an image folder, or package.module:callable.",
        )
    clock.stage("Load the data")
    return load_data(data, input_shape=source.input_shape, seed=seed)


def _optional_data(
    data: str | None, source: Source, clock: Stopwatch, *, seed: int
) -> Splits | None:
    """The demo brings its own; any other deployable may do without."""
    if data is None and source.name != "demo":
        return None
    return _data(data, source, clock, seed=seed)


def _finish_deployable(job: Job, final: Path) -> Result:
    deployable = job.source.tflite if job.source.tflite is not None else job.source.onnx
    assert deployable is not None
    with OutputFolder(final) as folder:
        result = image_result(job, deployable, folder.path)
        _write_result(result, folder.path)
    return result


def _checkpoint_key(job: Job, replayed: Plan | None) -> dict[str, object]:
    """Everything that decides the plan and the compressed weights."""
    assert job.splits is not None
    return {
        "model": job.source.hash,
        "data": job.splits.hash,
        "profile": job.profile.content_hash(),
        "budget": job.budget.content_hash(),
        "effort": job.effort,
        "seed": job.seed,
        "optimize": job.options.optimize,
        "metric": job.metric,
        "plan": None if replayed is None else replayed.content_hash(),
    }


def _require_float(source: Source, command: str) -> None:
    if source.kind != "float":
        raise BadInput(
            f"{source.name} is already quantized, so there is nothing to {command}.",
            next_step="Use `edgecompress compile`.",
        )


def _read_plan(path: Path | None, source: Source, splits: Splits) -> Plan | None:
    """A plan.json to replay, refused when it was made for another model or other data."""
    from pydantic import ValidationError

    if path is None:
        return None
    try:
        plan = Plan.from_json(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise BadInput(f"{path} is not a plan: {where}: {first['msg']}.") from None
    for what, made_for, given in (
        ("model", plan.model_hash, source.hash),
        ("data", plan.data_hash, splits.hash),
    ):
        if made_for != given:
            raise BadInput(
                f"{path} was made for another {what} (sha256 {made_for[:12]}, given {given[:12]}).",
                next_step="Plan again with `edgecompress plan`.",
            )
    return plan


def _default_output(name: str, profile: DeviceProfile) -> Path:
    return Path("build") / f"{name}-{profile.name}"


def _write_result(result: Result, folder: Path) -> None:
    from edgecompress.report.arena import PICTURE, arena_svg
    from edgecompress.report.text import report_text

    if result.memory is not None and result.memory.tensors:
        steps = [layer.name for layer in result.layers]
        picture = arena_svg(result.memory, steps, title=f"{result.model} on {result.target}")
        (folder / PICTURE).write_text(picture, encoding="utf-8")
    (folder / "result.json").write_text(result.to_json())
    (folder / "report.txt").write_text(report_text(result))
