"""targets list, show, check, new, schema: what the tool knows about devices."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecompress.cli import options as opt
from edgecompress.cli.failures import EXIT_BAD_INPUT, EXIT_FITS, explain
from edgecompress.cli.session import show
from edgecompress.errors import BadInput, EdgeCompressError, UnwritableOutput

if TYPE_CHECKING:
    from edgecompress.target.agreement import Agreement

app = typer.Typer(help="List, show, check and describe devices.", rich_markup_mode="rich")

Name = Annotated[
    str, typer.Argument(help="A name from `targets list`, a part number, a board, or a TOML.")
]
Names = Annotated[
    list[str] | None, typer.Argument(help="Names or TOML paths; every target if left out.")
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="File to write.")]


@app.callback(invoke_without_command=True)
def _root(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_targets()


@app.command("list")
def list_targets(
    family: Annotated[str | None, typer.Option(help="Only this family, such as stm32h7.")] = None,
    core: Annotated[str | None, typer.Option(help="Only this core, such as cortex-m4.")] = None,
    min_flash: Annotated[str | None, typer.Option(help="At least this much, such as 1M.")] = None,
    min_ram: Annotated[str | None, typer.Option(help="At least this much, such as 256K.")] = None,
    as_json: opt.AsJson = False,
    debug: opt.Debug = False,  # noqa: ARG001
) -> int:
    """Every target with its core, memory, firmware and where its images can run.

    Those of ./targets and of the folders of $EDGECOMPRESS_TARGETS come before the shipped ones.
    """
    from edgecompress.report.targets import GENERIC, targets_table
    from edgecompress.target.folders import SHIPPED
    from edgecompress.target.registry import list_targets as all_targets
    from edgecompress.units import parse_bytes

    least_flash, least_ram = (
        parse_bytes(size or 0) if size else 0 for size in (min_flash, min_ram)
    )
    listed, faults = all_targets()
    chosen = [
        (found, profile)
        for found, profile in listed
        if (family is None or (profile.family or GENERIC) == family.lower())
        and (core is None or profile.core.name == core.lower())
        and (not least_flash or (profile.flash_bytes or 0) >= least_flash)
        and (not least_ram or (profile.ram_bytes or 0) >= least_ram)
    ]
    for path, fault in faults.items():
        print(f"Left out {path}: {fault}", file=sys.stderr)
    if as_json:
        print(json.dumps({"targets": [p.model_dump(mode="json") for _, p in chosen]}, indent=2))
        return EXIT_FITS
    if not chosen:
        families = ", ".join(sorted({profile.family or GENERIC for _, profile in listed}))
        raise BadInput("No target is like that.", next_step=f"Families: {families}.")
    origins = {
        found.entry.name: f"from {found.folder.label}"
        + (f", hides {', '.join(found.shadows)}" if found.shadows else "")
        for found, _ in chosen
        if found.folder.label != SHIPPED
    }
    show(targets_table([profile for _, profile in chosen], origins))
    return EXIT_FITS


@app.command("show")
def show_target(name: Name, as_json: opt.AsJson = False, debug: opt.Debug = False) -> int:  # noqa: ARG001
    """One device profile, whole."""
    from edgecompress.report.targets import target_table
    from edgecompress.target.registry import load_target, place_of

    profile = load_target(name)
    if as_json:
        print(profile.to_json(), end="")
    else:
        show(target_table(profile, place_of(name)))
    return EXIT_FITS


@app.command("check")
def check_targets(
    names: Names = None,
    every: Annotated[bool, typer.Option("--all", help="Every target there is.")] = False,
    pyocd: Annotated[
        bool, typer.Option("--pyocd/--no-pyocd", help="Compare with pyOCD's memory maps, offline.")
    ] = True,
    as_json: opt.AsJson = False,
    debug: opt.Debug = False,  # noqa: ARG001
) -> int:
    """Validate targets: schema, virtual board, pyOCD's memory maps; exit 2 when one is wrong."""
    from edgecompress.report.targets import checks_table
    from edgecompress.target import target_names

    compared: dict[str, Agreement] = {}
    asked = target_names() if every or not names else names
    checked = [(name, _fault(name, compared if pyocd else None)) for name in _each(asked)]
    if as_json:
        rows = [
            {"name": name, "ok": fault is None, "error": fault,
             "pyocd": compared[name].model_dump() if name in compared else None}
            for name, fault in checked
        ]  # fmt: skip
        print(json.dumps({"checked": rows}, indent=2))
    else:
        show(checks_table(checked, compared))
    return EXIT_FITS if all(fault is None for _, fault in checked) else EXIT_BAD_INPUT


def _each(names: list[str]) -> list[str]:
    """A family file given by its path stands for each of its variants."""
    from edgecompress.target.files import read_file

    each: list[str] = []
    for name in names:
        entries = []
        if name.endswith(".toml") and Path(name).is_file():
            try:
                entries = [entry for entry in read_file(Path(name)) if not entry.is_family]
            except EdgeCompressError:
                entries = []  # loading it says what is wrong
        if len(entries) > 1:
            each += [f"{name}:{entry.name}" for entry in entries]
        else:
            each.append(name)
    return each


def _fault(name: str, compared: dict[str, Agreement] | None) -> str | None:
    """What is wrong with a target, or None. A lone target's name must be its file's."""
    from edgecompress.target.agreement import agreement, board_faults, unknown_unconfirmed
    from edgecompress.target.registry import load_target

    try:
        profile = load_target(name)
        seen = None if compared is None else agreement(profile)
    except EdgeCompressError as error:
        failure = explain(error)
        return " ".join(part for part in (failure.message, failure.next_step) if part)
    expected = Path(name).stem if name.endswith(".toml") else None
    if expected is not None and not profile.family and profile.name != expected:
        return f"The file is called '{expected}' but its name key says '{profile.name}'."
    if faults := board_faults(profile):
        return f"{'; '.join(faults)}."
    if unknown := unknown_unconfirmed(profile):
        return f"unconfirmed names {', '.join(unknown)}, which is no key of the profile."
    if compared is not None and seen is not None:
        if seen.state == "differs":
            return f"{seen.detail}."
        compared[name] = seen
    return None


@app.command("new")
def new_target(
    from_pyocd: Annotated[
        str | None, typer.Option("--from-pyocd", metavar="PART", help="A chip pyOCD knows.")
    ] = None,
    from_pack: Annotated[
        Path | None, typer.Option("--from-pack", metavar="FILE", help="A vendor's CMSIS-Pack.")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="PART", help="Which device of the pack.")
    ] = None,
    core: Annotated[
        str | None, typer.Option("--core", help="The core, where the source does not say.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="The target's name.")] = None,
    output: Output = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    debug: opt.Debug = False,  # noqa: ARG001
) -> int:
    """Write a target TOML from what pyOCD or a CMSIS-Pack knows of a chip.

    What neither says is left to the generic core and named in the file's first lines.
    """
    from edgecompress.target.folders import VARIABLE
    from edgecompress.target.generate import draft
    from edgecompress.target.pyocd_chips import builtin_chip, pack_chip
    from edgecompress.target.registry import relatives, with_family_facts

    if (from_pyocd is None) == (from_pack is None):
        raise BadInput("Give one of --from-pyocd PART and --from-pack FILE.")
    chip = pack_chip(from_pack, device) if from_pack else builtin_chip(from_pyocd or "")
    made = draft(with_family_facts(chip), core=core, name=name or (output and output.stem))
    path = output or Path(f"{made.name}.toml")
    known, ready = relatives(chip.part)
    _write(path, made.text, force=force)
    print(f"Wrote {path}.")
    for note in made.notes:
        print(f"- {note}")
    if known is not None:
        print(f"- '{known}' describes this part already, see `targets show {known}`.")
    elif ready:
        print(f"- Of its family these have firmware: {', '.join(ready)}.")
    print(f"Use it with --target {path}, or by name from ./targets or ${VARIABLE}.")
    return EXIT_FITS


@app.command("schema")
def editor_schema(
    output: Output = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    debug: opt.Debug = False,  # noqa: ARG001
) -> int:
    """The JSON Schema of target files, for editors: printed, or written to a file.

    A TOML whose first line is `#:schema ./target.schema.json` is checked and completed by editors
    with a TOML language server.
    """
    from edgecompress.target.editor_schema import editor_schema_text

    if output is None:
        print(editor_schema_text(), end="")
    else:
        _write(output, editor_schema_text(), force=force)
        print(f"Wrote {output}.")
    return EXIT_FITS


def _write(path: Path, text: str, *, force: bool) -> None:
    """Raises UnwritableOutput: it exists and `force` is not given, or the folder refuses it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UnwritableOutput(
            f"{path} is there already.", next_step="Give --force, or another --output."
        ) from None
    except OSError as error:
        raise UnwritableOutput(f"{path} cannot be written: {error.strerror}.") from None
