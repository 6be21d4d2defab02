"""profile, compare, verify: a finished image on devices."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecompress.cli import options as opt
from edgecompress.cli.failures import EXIT_DEVICE_TROUBLE, EXIT_FITS
from edgecompress.cli.session import show, working
from edgecompress.errors import BadConfig

if TYPE_CHECKING:
    from edgecompress.records import DeviceVerification, Fleet, Measurement

# Commands import the api inside: `--help` must not wait for numpy and the ports.

_BENCH = "Bench"
Devices = Annotated[
    list[str] | None,
    typer.Option("--device", help="virtual, process, qemu, adb[:SERIAL], serial:/dev/ttyACM0, "
                 "socket://host:port or rfc2217://...; several measure at once."),
]  # fmt: skip
Everything = Annotated[
    bool, typer.Option("--all", help="Every attached board that runs this very model.")
]
FlashFirst = Annotated[bool, typer.Option("--flash", help="Put the image onto the board first.")]
Probe = Annotated[
    str | None, typer.Option("--probe", help="The debug probe to flash with (see `devices`).")
]
Watch = Annotated[
    bool, typer.Option("--watch", help="Measure again and again until Ctrl-C; show the drift.")
]
Voltage = Annotated[
    float | None,
    typer.Option("--voltage", min=0, help="Supply in volts, recorded as you say it.",
                 rich_help_panel=_BENCH),
]  # fmt: skip
Note = Annotated[
    str,
    typer.Option("--note", help="Anything to remember, recorded with the measurement.",
                 rich_help_panel=_BENCH),
]  # fmt: skip
First = Annotated[Path, typer.Argument(help="A measurement file, or an artifact: its latest.")]
Second = Annotated[Path, typer.Argument(help="What is compared with it.")]
Across = Annotated[
    str,
    typer.Option("--across", help="What may differ: model, target, clock, settings, compiler, "
                 "requantize, port, host, device; separated by commas."),
]  # fmt: skip
Force = Annotated[bool, typer.Option("--force", help="Compare unlike runs; the result says so.")]
OneDevice = Annotated[str | None, typer.Option("--device", help="As for profile; one.")]
Samples = Annotated[int, typer.Option("--samples", min=1, help="How many to run.")]
TimeLimit = Annotated[
    float, typer.Option("--time-limit", min=1, help="Seconds after which no sample is begun.")
]


def profile(
    image_dir: opt.ImageDir,
    device: Devices = None,
    everything: Everything = False,
    target: opt.Target = None,
    runs: opt.Runs = 10,
    warmup: opt.Warmup = 1,
    layers: opt.Layers = False,
    watch: Watch = False,
    flash: FlashFirst = False,
    probe: Probe = None,
    voltage: Voltage = None,
    note: Note = "",
    as_json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> int:
    """Run a finished image on a device, or on several at once, and measure it."""
    devices = list(device or ())
    chosen: dict[str, Any] = {"runs": runs, "warmup": warmup, "target": target,
                              "voltage_v": voltage, "note": note}  # fmt: skip
    if watch:
        if everything or len(devices) > 1:
            raise BadConfig("--watch follows one device.", next_step="Name one with --device.")
        if flash:
            raise BadConfig("--watch does not flash.", next_step="Flash first: edgecompress flash.")
        from edgecompress.cli.watch import watch_device

        measured = watch_device(image_dir, next(iter(devices), None), layers=layers, **chosen)
        return _show_measurement(measured, image_dir, as_json=as_json)
    if everything or len(devices) > 1:
        if probe is not None:
            raise BadConfig("--probe is for one board.", next_step="Flash several one by one.")
        chosen["flash"] = flash
        return _profile_several(
            image_dir, devices, chosen, everything=everything, as_json=as_json, debug=debug
        )
    with working(debug=debug) as progress:
        from edgecompress import api

        measured = api.profile(
            image_dir, device=next(iter(devices), None), layers=layers, flash=flash, probe=probe,
            progress=progress, **chosen,
        )  # fmt: skip
    return _show_measurement(measured, image_dir, as_json=as_json)


def _show_measurement(measured: Measurement, image_dir: Path, *, as_json: bool) -> int:
    if as_json:
        sys.stdout.write(measured.to_json())
    else:
        from edgecompress.report.measuring import measurement_table

        show(measurement_table(measured, name=image_dir.resolve().name))
    return EXIT_FITS


def _profile_several(
    image_dir: Path,
    devices: list[str],
    chosen: dict[str, Any],
    *,
    everything: bool,
    as_json: bool,
    debug: bool,
) -> int:
    with working(debug=debug) as progress:
        from edgecompress import api

        if everything:
            attached = api.find_boards(
                image_dir, target=chosen["target"], flash=chosen["flash"], progress=progress
            )
            devices += [board for board in attached if board not in devices]
        fleet: Fleet = api.profile_fleet(image_dir, devices, progress=progress, **chosen)
    if as_json:
        sys.stdout.write(fleet.to_json())
    else:
        from edgecompress.report.measuring import fleet_table

        show(fleet_table(fleet, name=image_dir.resolve().name))
    return EXIT_FITS if fleet.complete else EXIT_DEVICE_TROUBLE


def compare(
    first: First,
    second: Second,
    across: Across = "",
    force: Force = False,
    as_json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> int:
    """Compare two measurements of like kind: the ratio, its interval, layers and sizes."""
    with working(debug=debug):
        from edgecompress import api

        names = [name.strip() for name in across.split(",") if name.strip()]
        compared = api.compare(first, second, across=names, force=force)
    if as_json:
        sys.stdout.write(compared.to_json())
    else:
        from edgecompress.report.comparing import comparison_table

        show(comparison_table(compared))
    return EXIT_FITS


def verify(
    image_dir: opt.ImageDir,
    device: OneDevice = None,
    samples: Samples = 10,
    data: opt.Data = None,
    target: opt.Target = None,
    time_limit: TimeLimit = 600.0,
    as_json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> int:
    """Run samples on a device and compare every layer with the host, bit by bit."""
    with working(debug=debug) as progress:
        from edgecompress import api

        found = api.verify(
            image_dir, device=device, samples=samples, data=data, target=target,
            time_limit_s=time_limit, progress=progress,
        )  # fmt: skip
    if as_json:
        sys.stdout.write(found.to_json())
    else:
        from edgecompress.report.comparing import verification_table

        show(verification_table(found, name=image_dir.resolve().name))
    return verification_exit_code(found)


def verification_exit_code(found: DeviceVerification) -> int:
    """0 when all that was asked for agrees, or all the time allowed; else 3."""
    return EXIT_FITS if found.agrees and not found.broken else EXIT_DEVICE_TROUBLE
