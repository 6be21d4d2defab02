"""Samples on the device: every layer against the host build, and the accuracy it really has."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgecompress.device.harness import Session, open_device
from edgecompress.device.provenance import Remarks
from edgecompress.errors import DeviceTrouble, UnwritableOutput
from edgecompress.measuring.artifact import Artifact, open_artifact
from edgecompress.measuring.rebuilding import rebuild
from edgecompress.measuring.store import save
from edgecompress.progress import SILENT, Progress
from edgecompress.records import DeviceVerification, Difference, TensorSpec, Verification

if TYPE_CHECKING:
    from edgecompress.lower.program import Program
    from edgecompress.model.data import Splits
    from edgecompress.verify.host import HostModel

TIME_LIMIT_S = 600.0


@dataclass
class _Tally:
    """What the samples finished so far have shown."""

    finished: int = 0
    stopped: str = ""
    broken: bool = False
    exact: bool = True
    tolerance: float | None = None
    sides: tuple[str, ...] = ()
    first_difference: Difference | None = None
    first_sample: int | None = None
    disagreements: Counter[str] = field(default_factory=Counter)
    device_top1: list[int] = field(default_factory=list)
    host_top1: list[int] = field(default_factory=list)

    def add(self, found: Verification, device: np.ndarray, host: np.ndarray) -> None:
        self.exact &= found.exact
        self.sides = found.sides
        self.tolerance = found.tolerance or self.tolerance
        if found.first_difference is not None:
            self.disagreements[found.first_difference.layer] += 1
            if self.first_difference is None:
                self.first_difference, self.first_sample = found.first_difference, self.finished
        self.device_top1.append(int(np.argmax(device)))
        self.host_top1.append(int(np.argmax(host)))
        self.finished += 1


def verify(
    image_dir: Path,
    *,
    device: str | None = None,
    samples: int = 10,
    data: str | None = None,
    target: str | None = None,
    time_limit_s: float = TIME_LIMIT_S,
    progress: Progress = SILENT,
) -> DeviceVerification:
    """Runs samples on the device and compares every layer with the host build of the same model.

    All samples are run even where one disagrees. What was finished before the device failed, the
    time was up or the user interrupted is in the result, and `stopped` says so. The result is kept
    beside the image like a measurement.

    Args:
        samples: of the data's test split, in its order; of seeded noise without data.
        data: as `fit` takes it; default the demo's own for the demo, else none.
        time_limit_s: no sample is begun after this long.

    Raises:
        BadInput: no image, no model beside it, or data it does not take.
        DeviceTrouble: the device failed before its first sample was finished.
    """
    artifact = open_artifact(image_dir, target)
    progress.stage("Build the model for this machine")
    program, host = rebuild(artifact)
    inputs, labels, name = _inputs(artifact, program, data, samples)
    where = device or artifact.default_device()
    progress.stage(f"Verify on {where}", total=len(inputs))
    with open_device(image_dir, artifact.profile, where) as session:
        tally = _run(session, program, host, inputs, time_limit_s, progress)
        found = _record(session, tally, samples=len(inputs), labels=labels, data=name)
    _keep(artifact, found, progress)
    return found


def _run(
    session: Session,
    program: Program,
    host: HostModel,
    inputs: np.ndarray,
    time_limit_s: float,
    progress: Progress,
) -> _Tally:
    """The samples one after the other, until something ends it."""
    from edgecompress.verify.compare import verify as verify_layers

    tally = _Tally()
    deadline = time.monotonic() + time_limit_s
    try:
        for sample in inputs:
            if time.monotonic() >= deadline:
                tally.stopped = f"the time limit of {time_limit_s:g} s was reached"
                break
            found = verify_layers(
                program, host, session, session.manifest, sample[None], with_twin=False
            )
            on_device = session.read_layer(len(session.manifest.layers) - 1)
            tally.add(found, on_device, host.run(sample.reshape(program.inputs[0].shape)))
            progress.advance()
    except (DeviceTrouble, KeyboardInterrupt) as error:
        if not tally.finished:
            raise
        tally.stopped = str(error) or "interrupted"
        tally.broken = True
    return tally


def _inputs(
    artifact: Artifact, program: Program, data: str | None, samples: int
) -> tuple[np.ndarray, np.ndarray | None, str]:
    """[n, *input shape] as the device takes them, their labels or None, and where they are from."""
    from edgecompress.deploy import device_inputs

    splits = _splits(artifact, program, data)
    given = None if splits is None else splits.test.x
    inputs = device_inputs(program, given, samples)
    if splits is None:
        return inputs, None, "seeded noise"
    is_classifier = int(np.prod(program.outputs[0].shape)) > 1
    labels = splits.test.classes if is_classifier else None
    return inputs, labels, splits.name


def _splits(artifact: Artifact, program: Program, data: str | None) -> Splits | None:
    from edgecompress.model.data import load_data

    if data is None and artifact.manifest.model_name != "demo":
        return None
    result = artifact.result()
    # The split of the fit that made it: its test samples are the ones nothing was tuned on.
    seed = 0 if result is None else result.seeds.get("seed", 0)
    return load_data(data, input_shape=_source_shape(program.inputs[0]), seed=seed)


def _source_shape(spec: TensorSpec) -> tuple[int, ...]:
    """The input as the source model orders it."""
    if spec.source_layout != "NCHW":
        return spec.shape
    batch, height, width, channels = spec.shape
    return (batch, channels, height, width)


def _record(
    session: Session,
    tally: _Tally,
    *,
    samples: int,
    labels: np.ndarray | None,
    data: str,
) -> DeviceVerification:
    known = None if labels is None else labels[: tally.finished]
    return DeviceVerification(
        device=session.port.name,
        verification=Verification(
            exact=tally.exact,
            layers=len(session.manifest.layers),
            samples=tally.finished,
            sides=tally.sides,
            first_difference=tally.first_difference,
            tolerance=tally.tolerance,
        ),
        samples_asked=samples,
        stopped=tally.stopped,
        broken=tally.broken,
        first_sample=tally.first_sample,
        disagreements=dict(tally.disagreements),
        device_accuracy=_top1(tally.device_top1, known),
        host_accuracy=_top1(tally.host_top1, known),
        data=data,
        provenance=session.provenance(Remarks()),
    )


def _top1(predicted: list[int], labels: np.ndarray | None) -> float | None:
    if labels is None or not predicted:
        return None
    return 100.0 * float(np.mean(np.asarray(predicted) == labels))


def _keep(artifact: Artifact, found: DeviceVerification, progress: Progress) -> None:
    try:
        path = save(
            found, artifact.folder, time_utc=found.provenance.time_utc, device=found.device,
            kind="verification",
        )  # fmt: skip
    except UnwritableOutput as error:
        progress.note(f"Not saved: {error}")
    else:
        progress.note(f"Saved as {path}")
