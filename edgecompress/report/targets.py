"""Tables of device profiles: the list, one whole, and what a check found."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgecompress.report.tables import plain_table
from edgecompress.target import DeviceProfile
from edgecompress.target.agreement import Agreement
from edgecompress.units import format_bytes

GENERIC = "generic"


def targets_table(
    profiles: Sequence[DeviceProfile], origins: dict[str, str] | None = None
) -> RenderableType:
    """A line a target, a heading a family, those without a family first.

    Args:
        origins: by name, where a target comes from when it is not a shipped one.
    """
    headings = ["Target", "core", ">flash", ">RAM", ">MHz", "firmware", "runs here on"]
    table = plain_table(*headings)
    for column in table.columns:
        column.no_wrap = True
    ordered = sorted(profiles, key=lambda profile: (profile.family, profile.name))
    several = len({profile.family for profile in ordered}) > 1
    for family, members in itertools.groupby(ordered, key=lambda profile: profile.family):
        if several:
            table.add_row(Text(f"[{family or GENERIC}]", style="cyan"))
        for profile in members:
            cells = [
                Text(profile.name, style="bold"), Text(profile.core.name),
                _size(profile.flash_bytes), _size(profile.ram_bytes),
                f"{profile.core.clock_hz / 1e6:g}", firmware(profile),
                ", ".join(runs_on(profile)),
            ]  # fmt: skip
            table.add_row(*cells)
    if not origins:
        return table
    return Group(table, Text(""), *(Text(f"{name}: {place}") for name, place in origins.items()))


def firmware(profile: DeviceProfile) -> str:
    """What of the image the real device takes."""
    if profile.kind != "mcu":
        return "package" if profile.kind == "cuda" else "executable"
    return profile.console.port if profile.has_firmware else "library"


def runs_on(profile: DeviceProfile) -> list[str]:
    """Where an image for this target can run without the board on the desk."""
    places = []
    if profile.virtual is not None:
        places.append("virtual board")
    if profile.kind == "host":
        places.append("qemu-user" if profile.qemu is not None else "process")
    elif profile.qemu is not None and profile.qemu.machine:
        places.append("qemu")
    return places or ["compiled only"]


def _size(size_bytes: int | None) -> str:
    return "" if size_bytes is None else f"{size_bytes // 1024} KiB"


def target_table(profile: DeviceProfile, origin: str = "") -> RenderableType:
    """A whole profile: core, memory, toolchain, where it runs, where the facts come from."""
    core = profile.core
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column()
    extras = [f"FPU {core.fpu}"] + [
        label for label, there in (("DSP", core.dsp), ("MVE", core.mve)) if there
    ]
    facts.add_row("Core", f"{core.name}, {core.isa}, {', '.join(extras)}")
    facts.add_row("Clock", f"{core.clock_hz / 1e6:g} MHz")
    if core.cycles_per_instruction is not None:
        low, high = core.cycles_per_instruction
        facts.add_row("Cycles", f"{low} to {high} an instruction, an estimate")
        facts.add_row("", Text(core.cycles_source, style="dim"))
    for region in profile.regions:
        end = region.origin + region.size - 1
        banks = f", banks of {', '.join(map(format_bytes, region.banks))}" if region.banks else ""
        place = f"{region.origin:#010x} to {end:#010x}{banks}"
        facts.add_row(f"{region.kind} {region.name}", f"{format_bytes(region.size):<12} {place}")
    if profile.kind == "mcu":
        facts.add_row("Stack reserve", format_bytes(profile.stack_reserve))
    facts.add_row("Console", Text(_console(profile)))
    if profile.flashing is not None:
        facts.add_row("Flashing", Text(_flashing(profile)))
    facts.add_row("Runs here on", ", ".join(runs_on(profile)))
    zig = f"zig {profile.toolchain.zig_target} {profile.toolchain.zig_cpu}".rstrip()
    facts.add_row("Toolchain", f"LLVM {profile.toolchain.llvm.get('mtriple', '')}, {zig}")
    facts.add_row("Source", Text(f"{profile.source} ({profile.date})"))
    if names := [*profile.aliases, *profile.boards]:
        facts.add_row("Also called", Text(", ".join(names)))
    if profile.unconfirmed:
        facts.add_row("Not looked up", Text(", ".join(profile.unconfirmed), style="yellow"))
    if origin:
        facts.add_row("From", Text(origin))
    title = Text(f"{profile.name}: {profile.description}", style="bold")
    return Group(title, facts)


def _console(profile: DeviceProfile) -> str:
    console = profile.console
    if not profile.has_firmware:
        return (
            "none on the real chip: lib/libmodel.a is for your own firmware, firmware.elf for the "
            "virtual board"
        )
    settings = ", ".join(f"{key} {value}" for key, value in console.settings.items())
    return f"{console.port}, {console.baud} baud" + (f"; {settings}" if settings else "")


def _flashing(profile: DeviceProfile) -> str:
    flashing = profile.flashing
    assert flashing is not None
    names = {
        "pyocd": f"pyocd ({flashing.pyocd_target})",
        "esptool": f"esptool ({flashing.esptool_chip})",
    }  # fmt: skip
    tools = ", ".join(names.get(tool, tool) for tool in (flashing.tool, *flashing.others))
    return f"{tools}; pyOCD takes the pack {flashing.pack}" if flashing.pack else tools


def checks_table(
    checked: Iterable[tuple[str, str | None]], compared: dict[str, Agreement] | None = None
) -> RenderableType:
    """A line a target: its name, what is wrong with it, and how pyOCD sees it."""
    compared = compared or {}
    rows = list(checked)
    table = plain_table("", "Target", "")
    for name, fault in rows:
        mark = Text("✓", style="green") if fault is None else Text("✗", style="red")
        seen = compared.get(name)
        said = fault or ("" if seen is None else f"{seen.state}: {seen.detail}")
        table.add_row(mark, Text(name), Text(said, style="" if fault else "dim"))
    wrong = sum(fault is not None for _, fault in rows)
    total = "1 target" if len(rows) == 1 else f"{len(rows)} targets"
    summary = f"{total}, {wrong} wrong" if wrong else f"{total}, all valid"
    if compared:
        states = [seen.state for seen in compared.values()]
        counts = {state: states.count(state) for state in dict.fromkeys(states)}
        summary += "; with pyOCD " + ", ".join(
            f"{count} {state}" for state, count in counts.items()
        )
    return Group(table, Text(summary, style="red" if wrong else "green"))
