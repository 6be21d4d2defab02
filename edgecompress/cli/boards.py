"""devices, flash: what is connected, and putting an image onto it."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from edgecompress.cli import options as opt
from edgecompress.cli.failures import EXIT_FITS
from edgecompress.cli.session import show, working


class FlashTool(StrEnum):
    """How an image gets onto a chip."""

    pyocd = "pyocd"
    stm32loader = "stm32loader"
    esptool = "esptool"
    uf2 = "uf2"


Ask = Annotated[
    bool,
    typer.Option("--probe", help="Open each serial port and ask its firmware; may reset boards."),
]
Probe = Annotated[
    str | None, typer.Option("--probe", help="The debug probe's id, or how it begins.")
]
BootPort = Annotated[
    str | None,
    typer.Option("--device", help="serial:PORT of a boot loader (stm32loader, esptool)."),
]
Tool = Annotated[FlashTool | None, typer.Option("--tool", help="Instead of the target's usual.")]
Uf2Drive = Annotated[
    Path | None, typer.Option("--uf2-drive", help="Where an RP2 boot loader's drive is mounted.")
]
Unlock = Annotated[
    bool, typer.Option("--unlock", help="Open a locked chip, which erases all of it.")
]
Force = Annotated[
    bool, typer.Option("--force", help="Program although the chip says that it is another.")
]


def devices(ask: Ask = False, as_json: opt.AsJson = False, debug: opt.Debug = False) -> int:
    """List serial ports, adb devices, debug probes and emulators, and what they likely are."""
    with working(debug=debug) as progress:
        from edgecompress import api

        progress.stage("Ask every serial port" if ask else "Look for devices")
        found = api.devices(probe=ask)
    if as_json:
        listed = [device.model_dump(mode="json") for device in found.devices]
        print(json.dumps({"devices": listed, "hints": list(found.hints)}, indent=2))
    else:
        from edgecompress.report.devices import devices_table

        show(devices_table(found.devices, found.hints))
    return EXIT_FITS


def flash(
    image_dir: opt.ImageDir,
    probe: Probe = None,
    device: BootPort = None,
    tool: Tool = None,
    uf2_drive: Uf2Drive = None,
    unlock: Unlock = False,
    force: Force = False,
    target: opt.Target = None,
    as_json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> int:
    """Program a board with a finished image, and verify it."""
    with working(debug=debug) as progress:
        from edgecompress import api
        from edgecompress.device.flash import FlashOptions

        report = api.flash(
            image_dir, target=target, probe=probe, device=device, progress=progress,
            options=FlashOptions(tool.value if tool else None, uf2_drive, unlock, force),
        )  # fmt: skip
    if as_json:
        sys.stdout.write(report.to_json())
    else:
        from edgecompress.report.devices import flash_table

        show(flash_table(report))
    return EXIT_FITS
