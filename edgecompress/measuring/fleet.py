"""Several devices measured at once, one thread each; what fails does not take the others along."""

from __future__ import annotations

import fnmatch
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from edgecompress.device.harness import Session, open_device
from edgecompress.device.provenance import Remarks
from edgecompress.device_records import FoundDevice
from edgecompress.errors import BadInput, DeviceNotFound, EdgeCompressError
from edgecompress.measuring.artifact import Artifact, open_artifact
from edgecompress.measuring.flashing import flash_before
from edgecompress.measuring.profiling import measure_and_keep
from edgecompress.progress import SILENT, Progress
from edgecompress.records import Fleet, FleetMember

_CLOSE_SECONDS = 15


def profile_fleet(
    image_dir: Path,
    devices: Sequence[str],
    *,
    runs: int = 10,
    warmup: int = 1,
    target: str | None = None,
    flash: bool = False,
    voltage_v: float | None = None,
    note: str = "",
    progress: Progress = SILENT,
) -> Fleet:
    """`profile` on every device at the same time. Each measurement is kept beside the image.

    Args:
        devices: what `--device` takes, each as often as there are boards of that name.
        flash: put the image onto each board first, one after the other.

    Returns:
        A member a device, in the order given: its measurement, or how it failed.

    Raises:
        BadInput: no image, no devices, or one port named twice.
    """
    artifact = open_artifact(image_dir, target)
    _check(devices)
    progress.stage(f"Measure on {len(devices)} devices", total=runs * len(devices))
    remarks = Remarks(voltage_v, note)

    def measure(session: Session) -> FleetMember:
        measured = measure_and_keep(
            artifact, session, runs=runs, warmup=warmup, remarks=remarks, progress=progress
        )
        return FleetMember(device=session.port.name, measurement=measured)

    boards = [_Board(artifact, device, measure, progress, flash=flash) for device in devices]
    _run_all(boards)
    return Fleet(members=tuple(board.result() for board in boards))


def find_boards(
    image_dir: Path,
    *,
    target: str | None = None,
    flash: bool = False,
    progress: Progress = SILENT,
) -> list[str]:
    """Attached devices that run this artifact, as `--device` takes them: what `--all` means.

    Boards on serial ports are asked which model they run, which may reset them; adb devices take
    the image as it is pushed, so all that are ready count where the artifact is for a host.

    Args:
        flash: boards that are, or by their adapter likely are, of the artifact's target count too:
            they are about to get its image.

    Raises:
        BadInput: no image.
        DeviceNotFound: there is none.
    """
    from edgecompress.device.discover import discover

    artifact = open_artifact(image_dir, target)
    progress.stage("Ask every attached board")
    wanted = artifact.manifest.model_hash
    found = []
    for device in discover(probe=True):
        is_board = device.kind == "serial"
        if is_board and (device.model == wanted or (flash and _is_likely(artifact, device))):
            found.append(device.address)
        elif is_board and device.model:
            progress.note(f"{device.address} runs another model: left out.")
        elif device.kind == "adb" and device.state == "ready" and _is_pushable(artifact):
            found.append(device.address)
    if not found:
        raise DeviceNotFound(
            f"No attached board runs the model of {image_dir}.",
            next_step="See `edgecompress devices`; flash the image, or name one with --device.",
        )
    return found


def _is_likely(artifact: Artifact, device: FoundDevice) -> bool:
    return any(
        fnmatch.fnmatchcase(artifact.profile.name, pattern) for pattern in device.likely_targets
    )


def _is_pushable(artifact: Artifact) -> bool:
    return artifact.profile.kind == "host" and artifact.profile.core.isa == "armv8-a"


def _check(devices: Sequence[str]) -> None:
    if not devices:
        raise BadInput("No device to measure on.", next_step="Name one with --device.")
    # Two runners on one phone would measure each other, whichever cores they are kept on.
    single = [device.partition(",")[0] for device in devices if _is_one_of_a_kind(device)]
    if twice := {device for device in single if single.count(device) > 1}:
        raise BadInput(f"{' and '.join(sorted(twice))} is named twice: one port, one board.")


def _is_one_of_a_kind(device: str) -> bool:
    return device.startswith(("serial:", "adb")) or "://" in device


class _Board:
    """One device and the thread that measures it."""

    def __init__(
        self,
        artifact: Artifact,
        device: str,
        measure: Callable[[Session], FleetMember],
        progress: Progress,
        *,
        flash: bool,
    ) -> None:
        self._artifact, self._device, self._measure = artifact, device, measure
        self._progress, self._flash = progress, flash
        self._session: Session | None = None
        self._member: FleetMember | None = None
        self._bug: Exception | None = None
        self.thread = threading.Thread(target=self._work, name=f"measure {device}", daemon=True)

    def _work(self) -> None:
        try:
            if self._flash:
                flash_before(self._artifact, self._device, self._progress)
            with open_device(
                self._artifact.folder, self._artifact.profile, self._device
            ) as self._session:
                made = self._measure(self._session)
            self._member = made.model_copy(update={"device": self._device})
        except EdgeCompressError as error:
            self._progress.note(f"{self._device}: {error}")
            self._member = FleetMember(
                device=self._device, error_kind=type(error).__name__, error=str(error)
            )
        except Exception as error:
            self._bug = error

    def abandon(self) -> None:
        """Closes the port under the thread, whose next word to the device then fails."""
        if self._session is not None:
            self._session.close()
        self.thread.join(_CLOSE_SECONDS)

    def result(self) -> FleetMember:
        if self._bug is not None:
            raise self._bug
        if self._member is None:
            raise DeviceNotFound(f"{self._device} was given up.")
        return self._member


def _run_all(boards: Sequence[_Board]) -> None:
    for board in boards:
        board.thread.start()
    try:
        for board in boards:
            while board.thread.is_alive():
                # A bounded wait lets Ctrl-C through.
                board.thread.join(0.2)
    except KeyboardInterrupt:
        for board in boards:
            board.abandon()
        raise
