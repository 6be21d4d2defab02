"""devices, flash: what is connected, and putting an image onto it."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from edgecompress.cli import options as opt
from edgecompress.cli.failures import EXIT_FITS
from edgecompress.cli.session import show, working

Ask = Annotated[
    bool,
    typer.Option("--probe", help="Open each serial port and ask its firmware; may reset boards."),
]


def devices(ask: Ask = False, as_json: opt.AsJson = False, debug: opt.Debug = False) -> int:
    """List serial ports, adb devices, debug probes and emulators, and what they likely are."""
    with working(debug=debug) as progress:
        from edgecompress.device.discover import look_around

        progress.stage("Ask every serial port" if ask else "Look for devices")
        found = look_around(probe=ask)
    if as_json:
        listed = [device.model_dump(mode="json") for device in found.devices]
        print(json.dumps({"devices": listed, "hints": list(found.hints)}, indent=2))
    else:
        from edgecompress.report.devices import devices_table

        show(devices_table(found.devices, found.hints))
    return EXIT_FITS
