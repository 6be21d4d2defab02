"""targets list, show, check: what the tool knows about devices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgecompress.cli import options as opt
from edgecompress.cli.failures import EXIT_BAD_INPUT, EXIT_FITS, explain
from edgecompress.cli.session import show
from edgecompress.errors import EdgeCompressError

app = typer.Typer(help="List, show and check device profiles.", rich_markup_mode="rich")

Name = Annotated[str, typer.Argument(help="A name from `targets list`, or the path of a TOML.")]
Names = Annotated[
    list[str] | None, typer.Argument(help="Names or TOML paths; every shipped target if left out.")
]


@app.callback(invoke_without_command=True)
def _root(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_targets()


@app.command("list")
def list_targets(as_json: opt.AsJson = False, debug: opt.Debug = False) -> int:  # noqa: ARG001
    """Every shipped target with its core, memory and where its images can run."""
    from edgecompress.report.tables import targets_table
    from edgecompress.target import load_target, target_names

    profiles = [load_target(name) for name in target_names()]
    if as_json:
        print(json.dumps({"targets": [p.model_dump(mode="json") for p in profiles]}, indent=2))
    else:
        show(targets_table(profiles))
    return EXIT_FITS


@app.command("show")
def show_target(name: Name, as_json: opt.AsJson = False, debug: opt.Debug = False) -> int:  # noqa: ARG001
    """One device profile, whole."""
    from edgecompress.report.tables import target_table
    from edgecompress.target import load_target

    profile = load_target(name)
    if as_json:
        print(profile.to_json(), end="")
    else:
        show(target_table(profile))
    return EXIT_FITS


@app.command("check")
def check_targets(
    names: Names = None,
    as_json: opt.AsJson = False,
    debug: opt.Debug = False,  # noqa: ARG001
) -> int:
    """Validate target TOMLs against the schema; exit 2 when one is wrong."""
    from edgecompress.report.tables import checks_table
    from edgecompress.target import target_names

    checked = [(name, _fault(name)) for name in names or target_names()]
    if as_json:
        rows = [{"name": name, "ok": fault is None, "error": fault} for name, fault in checked]
        print(json.dumps({"checked": rows}, indent=2))
    else:
        show(checks_table(checked))
    return EXIT_FITS if all(fault is None for _, fault in checked) else EXIT_BAD_INPUT


def _fault(name: str) -> str | None:
    """What is wrong with a target, or None. A TOML's name must be its file's."""
    from edgecompress.target import load_target

    try:
        profile = load_target(name)
    except EdgeCompressError as error:
        failure = explain(error)
        return " ".join(part for part in (failure.message, failure.next_step) if part)
    expected = Path(name).stem if name.endswith(".toml") else name
    if profile.name != expected:
        return f"The file is called '{expected}' but its name key says '{profile.name}'."
    return None
