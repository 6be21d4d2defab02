"""Flashing boards before they are measured: which probe belongs to which serial port."""

from __future__ import annotations

import threading

from edgecompress.device_records import FlashReport
from edgecompress.errors import BadInput
from edgecompress.measuring.artifact import Artifact
from edgecompress.progress import Progress

_ONE_AT_A_TIME = threading.Lock()
"""Probes share one USB library, and boards in a fleet are measured from threads."""


def flash_before(
    artifact: Artifact, device: str, progress: Progress, *, probe: str | None = None
) -> FlashReport:
    """Puts the artifact's image onto the board behind `device`.

    Boards that boot loaders flash take it through that very port; those flashed by a debug probe
    through `probe`, else the probe whose USB serial number is the port's (on-board probes are
    both), else the only probe there is.

    Raises:
        BadInput: `device` is nothing that is flashed.
        DeviceTrouble: see `device.flash`.
    """
    from edgecompress.device.flash import flash

    if not device.startswith("serial:") and "://" not in device:
        raise BadInput(
            f"'{device}' is not a board that is flashed.",
            next_step="Leave out --flash, or name the board with --device serial:PORT.",
        )
    flashing = artifact.profile.flashing
    by_probe = flashing is None or flashing.tool == "pyocd"
    if by_probe and probe is None:
        probe = _probe_of(device)
    port = device if not by_probe and device.startswith("serial:") else None
    with _ONE_AT_A_TIME:
        progress.note(f"Flashing {device}.")
        done = flash(artifact.folder, artifact.profile, probe=probe, port=port)
    progress.note(f"Flashed {done.chip or done.target} at {done.where} in {done.seconds:.1f} s.")
    return done


def _probe_of(device: str) -> str | None:
    """The id of the on-board probe whose serial port this is; None where there is no such pair."""
    from edgecompress.device.discover import discover

    found = discover()
    number = next((one.details.get("serial_number", "") for one in found
                   if one.kind == "serial" and one.address == device), "")  # fmt: skip
    probes = [one.address for one in found if one.kind == "probe"]
    return number if number in probes else None
