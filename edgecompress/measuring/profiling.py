"""One artifact on one device: warm-up, runs, layers; kept whatever happens on the way."""

from __future__ import annotations

import contextlib
from pathlib import Path

from edgecompress.device.harness import Session, open_device
from edgecompress.device.meter import Meter
from edgecompress.device.provenance import Remarks
from edgecompress.errors import DeviceTrouble, UnwritableOutput
from edgecompress.measuring.artifact import Artifact, open_artifact
from edgecompress.measuring.flashing import flash_before
from edgecompress.measuring.store import save
from edgecompress.progress import SILENT, Progress
from edgecompress.records import Measurement


def profile(
    image_dir: Path,
    *,
    device: str | None = None,
    runs: int = 10,
    warmup: int = 1,
    layers: bool = False,
    target: str | None = None,
    flash: bool = False,
    probe: str | None = None,
    voltage_v: float | None = None,
    note: str = "",
    progress: Progress = SILENT,
) -> Measurement:
    """Runs a finished image on a device and measures it, and keeps the measurement beside it.

    Args:
        device: default the target's virtual board, or a process for hosts.
        layers: also the cost of each layer in what is returned; what is kept always has it.
        target: where image.json's target is not a shipped one, its name or TOML.
        flash: put the image onto the board first; `probe` is the debug probe's id.
        voltage_v, note: what the person at the bench knows, recorded as said.

    Raises:
        BadInput: `image_dir` holds no image.
        DeviceTrouble: the device did not answer, crashed, or runs another image. Runs made until
            then are kept, and the message says where.
    """
    artifact = open_artifact(image_dir, target)
    where = device or artifact.default_device()
    if flash:
        progress.stage(f"Flash {where}")
        flash_before(artifact, where, progress, probe=probe)
    progress.stage(f"Measure on {where}", total=runs)
    with open_device(image_dir, artifact.profile, where) as session:
        measured = measure_and_keep(
            artifact, session, runs=runs, warmup=warmup,
            remarks=Remarks(voltage_v, note), progress=progress,
        )  # fmt: skip
    return measured if layers else measured.model_copy(update={"layers": ()})


def measure_and_keep(
    artifact: Artifact,
    session: Session,
    *,
    runs: int,
    warmup: int,
    remarks: Remarks,
    progress: Progress,
) -> Measurement:
    """`profile` on an open session.

    Raises:
        DeviceTrouble: see `profile`.
    """
    meter = Meter(session, artifact.sample(), remarks)
    try:
        meter.warm_up(warmup)
        meter.run(runs, progress)
        meter.finish()
    except DeviceTrouble as error:
        kept = keep_incomplete(artifact, meter, f"{meter.runs} of {runs} runs: {error.message}")
        if kept is not None:
            error.message += f" {meter.runs} of {runs} runs were measured and are kept in {kept}."
        raise
    except KeyboardInterrupt:
        kept = keep_incomplete(artifact, meter, f"{meter.runs} of {runs} runs: interrupted")
        if kept is not None:
            progress.note(f"{meter.runs} of {runs} runs are kept in {kept}")
        raise
    return keep(artifact, meter.record(), progress)


def keep(artifact: Artifact, measured: Measurement, progress: Progress) -> Measurement:
    """Saves it and says where; a folder that takes no file costs the file, not the figures."""
    try:
        progress.note(f"Saved as {_save(artifact, measured)}")
    except UnwritableOutput as error:
        progress.note(f"Not saved: {error}")
    return measured


def keep_incomplete(artifact: Artifact, meter: Meter, why: str) -> Path | None:
    """What a broken measurement has so far; None where that is nothing."""
    if not meter.runs:
        return None
    with contextlib.suppress(UnwritableOutput):
        return _save(artifact, meter.record(incomplete=why))
    return None


def _save(artifact: Artifact, measured: Measurement) -> Path:
    origin = measured.provenance
    assert origin is not None
    return save(measured, artifact.folder, time_utc=origin.time_utc, device=measured.device)
