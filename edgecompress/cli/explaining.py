"""explain: why a model or a result does not fit, the way out, and what cost the accuracy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from edgecompress.cli import options as opt
from edgecompress.cli.failures import EXIT_DOES_NOT_FIT, EXIT_FITS
from edgecompress.cli.session import DEFAULT_TARGET, choose, show, working

Subject = Annotated[
    str | None,
    typer.Argument(help="A folder that fit or compile wrote, or a model; the demo if left out."),
]


def explain(
    subject: Subject = None,
    data: opt.Data = None,
    target: opt.Target = None,
    flash: opt.Flash = None,
    ram: opt.Ram = None,
    latency_us: opt.LatencyUs = None,
    seed: opt.Seed = None,
    input_shape: opt.InputShape = None,
    trust: opt.Trust = False,
    as_json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> int:
    """Say why it does not fit, the cheapest way out, and where accuracy was lost."""
    if subject is not None and Path(subject).is_dir():
        return _explain_result(Path(subject), as_json=as_json, debug=debug)
    chosen = choose(model=subject, data=data, target=target, flash=flash, ram=ram,
                    latency_us=latency_us, seed=seed, input_shape=input_shape)  # fmt: skip
    with working(debug=debug) as progress:
        from edgecompress.explaining import explain_model

        found = explain_model(
            chosen.model or "demo", target=chosen.target or DEFAULT_TARGET, data=chosen.data,
            flash=chosen.flash, ram=chosen.ram, latency_us=chosen.latency_us, seed=chosen.seed,
            input_shape=chosen.input_shape, trust=trust, progress=progress,
        )  # fmt: skip
    if as_json:
        sys.stdout.write(found.to_json())
    else:
        from edgecompress.report.explaining import explanation_report

        show(explanation_report(found))
    return EXIT_FITS if any(way.fits for way in found.ways) else EXIT_DOES_NOT_FIT


def _explain_result(folder: Path, *, as_json: bool, debug: bool) -> int:
    with working(debug=debug):
        from edgecompress.explaining import read_result

        result = read_result(folder)
    if as_json:
        sys.stdout.write(result.to_json())
    else:
        from edgecompress.report.explaining import result_report

        show(result_report(result))
    return EXIT_FITS if result.fits else EXIT_DOES_NOT_FIT
