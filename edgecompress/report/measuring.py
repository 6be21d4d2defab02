"""What was measured, as tables: on one device, on several at once, and again and again."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgecompress.measuring.watching import Round
from edgecompress.records import (
    CycleEstimate,
    Fleet,
    FleetMember,
    LayerMeasurement,
    Measurement,
    Provenance,
    TimeStatistics,
)
from edgecompress.report.tables import plain_table
from edgecompress.units import format_bytes, format_us

_SHARE_CELLS = 16
_EXACT = "exact, emulated"


def facts_grid() -> Table:
    """Label and sentence, one fact a line."""
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    return facts


def format_time(us: float, resolution_us: float) -> str:
    """With the digits the timer has, three at least: "41.237 ms" of a 1 us timer."""
    value, unit = (us, "us") if us < 1e3 else (us / 1e3, "ms") if us < 1e6 else (us / 1e6, "s")
    scale = {"us": 1.0, "ms": 1e3, "s": 1e6}[unit]
    digits = 0
    while digits < 6 and scale * 10**-digits > max(resolution_us, us * 1e-4):
        digits += 1
    return f"{value:,.{digits}f} {unit}"


def measurement_table(measured: Measurement, *, name: str) -> RenderableType:
    """The cost of one inference, what is doubtful about it, where it comes from, and layers where
    they are there."""
    facts = facts_grid()
    if measured.instructions is not None:
        facts.add_row("Instructions", Text(_instructions(measured)))
    if measured.words is not None:
        facts.add_row("Words", f"{measured.words:,}, each register of a wide load or store is one")
    if measured.cycles is not None:
        facts.add_row("Cycles", Text(_cycles(measured.cycles)))
    if measured.time is not None:
        for label, words in _time_rows(measured.time):
            facts.add_row(label, words)
    elif measured.latency_us is not None:
        facts.add_row("Time", f"{format_us(measured.latency_us)} an inference")
    elif measured.instructions is None:
        facts.add_row("Cost", "no figure: this emulator's clock is neither time nor a count")
    if measured.stack_high_water_bytes is not None:
        facts.add_row("Stack high-water", format_bytes(measured.stack_high_water_bytes))
    facts.add_row("Kind of number", _kind(measured))
    if measured.provenance is not None:
        for label, words in origin_rows(measured.provenance):
            facts.add_row(label, Text(words))
    for warning in _doubts(measured):
        facts.add_row(Text("Warning", style="yellow"), Text(warning, style="yellow"))
    parts: list[RenderableType] = [Text(f"{name} on {measured.device}", style="bold"), facts]
    if measured.layers:
        parts += [Text(""), _layer_table(measured)]
    return Group(*parts)


def _kind(measured: Measurement) -> str:
    runs = "1 run" if measured.runs == 1 else f"{measured.runs:,} runs"
    warm_up = f" after {measured.warmup} to warm up" if measured.warmup else ""
    return f"{measured.label}, {runs}{warm_up}"


def _doubts(measured: Measurement) -> tuple[str, ...]:
    incomplete = (f"Incomplete: {measured.incomplete}",) if measured.incomplete else ()
    return (*incomplete, *measured.warnings)


def _instructions(measured: Measurement) -> str:
    """Never as statistics: an emulator that counts exactly has nothing to be sure of."""
    assert measured.instructions is not None
    count = f"{measured.instructions:,} an inference"
    if measured.label != "emulated instructions":
        return count
    per_tick = measured.instructions_per_tick or 1.0
    least, most = (limit(measured.ticks or (0,)) * per_tick for limit in (min, max))
    if least != most:
        return f"{count}, emulated; {least:,.0f} to {most:,.0f} over the runs"
    if per_tick > 1:
        return f"{count}, emulated, to one tick of {per_tick:,.0f} instructions"
    return f"{count} ({_EXACT})"


def _cycles(cycles: CycleEstimate) -> str:
    low, high = f"{cycles.low:,}", f"{cycles.high:,}"
    span = low if low == high else f"{low} to {high}"
    return f"{span}, an estimate by the {cycles.model}"


def _time_rows(time: TimeStatistics) -> list[tuple[str, RenderableType]]:
    def shown(us: float) -> str:
        return format_time(us, time.resolution_us)

    spread = ""
    if time.median_us:
        spread = f" ({100 * time.iqr_us / time.median_us:.2f} % of the median)"
    rows: list[tuple[str, RenderableType]] = [
        ("Median", Text(f"{shown(time.median_us)} an inference", style="bold")),
        (
            "Middle half",
            f"{shown(time.quartile_low_us)} to {shown(time.quartile_high_us)}, IQR "
            f"{shown(time.iqr_us)}{spread}",
        ),
        (
            "Range",
            f"min {shown(time.min_us)}, p99 {shown(time.p99_us)}, max {shown(time.max_us)}",
        ),
    ]
    if time.mean_low_us is not None and time.mean_high_us is not None:
        between = f"{shown(time.mean_low_us)} to {shown(time.mean_high_us)}"
        rows.append(("Mean", f"{shown(time.mean_us)} (95 % interval {between})"))
    rows.append(("Outliers", f"{time.outliers} of {time.runs:,} kept, beyond Tukey's 1.5 IQR"))
    rows.append(("Resolution", f"1 tick = {_resolution(time.resolution_us)}"))
    return rows


def _resolution(us: float) -> str:
    return f"{us * 1e3:.3g} ns" if us < 1 else f"{us:.3g} us"


def origin_rows(origin: Provenance) -> list[tuple[str, str]]:
    """What a reader needs to judge a figure; the file has the rest."""
    rows = []
    if origin.device_id:
        rows.append(("Device id", origin.device_id))
    if origin.clock_hz:
        how = f", {origin.clock_source}" if origin.clock_source else ""
        rows.append(("Core clock", f"{origin.clock_hz / 1e6:g} MHz{how}"))
    if origin.settings:
        rows.append(("Settings", " ".join(f"{key}={value}" for key, value in
                                          sorted(origin.settings.items()))))  # fmt: skip
    rows += _condition_rows(origin)
    rows.append(("Firmware", f"{origin.firmware_hash[:12]}, {_build(origin)}"))
    if origin.voltage_v is not None:
        rows.append(("Supply", f"{origin.voltage_v:g} V, as given"))
    if origin.note:
        rows.append(("Note", origin.note))
    if origin.retransmissions:
        rows.append(("Line", f"{origin.retransmissions} transmissions repeated"))
    return rows


def _condition_rows(origin: Provenance) -> list[tuple[str, str]]:
    """Cores, governors and temperatures, where the device's system tells them."""
    seen = origin.conditions
    if seen is None:
        return []
    rows = []
    if seen.pinned_cpus:
        rows.append(("Kept on", f"CPUs {', '.join(map(str, seen.pinned_cpus))}"))
    governors = [f"{one.name} {one.governor}" for one in seen.clusters_after if one.governor]
    if governors:
        rows.append(("Governor", ", ".join(governors)))
    if seen.temperatures_after_c:
        hottest = max(seen.temperatures_after_c, key=seen.temperatures_after_c.__getitem__)
        before = seen.temperatures_before_c.get(hottest)
        rise = "" if before is None else f", {before:.1f} °C before"
        rows.append(("Hottest", f"{hottest} {seen.temperatures_after_c[hottest]:.1f} °C{rise}"))
    return rows


def _build(origin: Provenance) -> str:
    if origin.build is None:
        return "compiler not recorded"
    optimization = next((flag for flag in reversed(origin.build.flags) if flag[:2] == "-O"), "")
    tvm = origin.build.versions.get("apache-tvm", "")
    words = (origin.build.compiler, optimization, f"TVM {tvm}" if tvm else "")
    return " ".join(word for word in words if word)


def _layer_table(measured: Measurement) -> Table:
    """A line a layer; work and code columns only where the image says something about them."""
    scale, unit = _layer_scale(measured)
    layers = measured.layers
    with_work = any(layer.macs for layer in layers)
    with_code = any(layer.implementation for layer in layers)
    spread = any(_spread(layer) for layer in layers)
    headings = [">#", "Layer", f">{unit}", *([">least", ">most"] if spread else [])]
    headings += [f">{'ns' if unit == 'us' else unit}/MAC"] if with_work else []
    table = plain_table(*headings, ">share", "", *(["code"] if with_code else []))
    total = sum(layer.ticks for layer in layers) or 1
    per_mac = scale * (1e3 if unit == "us" else 1)
    for layer in layers:
        share = layer.ticks / total
        cells = [Text(str(layer.index)), Text(layer.name), _cost(layer.ticks, scale)]
        if spread:
            cells += [_cost(layer.low_ticks, scale), _cost(layer.high_ticks, scale)]
        if with_work:
            each = f"{layer.ticks * per_mac / layer.macs:.2f}" if layer.macs else ""
            cells.append(Text(each))
        cells += [Text(f"{100 * share:.1f} %"), Text("█" * round(_SHARE_CELLS * share), "cyan")]
        if with_code:
            cells.append(Text(layer.implementation) if layer.implementation else _fallback())
        table.add_row(*cells)
    return table


def _layer_scale(measured: Measurement) -> tuple[float, str]:
    """What a tick is worth in the unit the layers are shown in."""
    if measured.label == "emulated instructions" and measured.instructions is not None:
        return measured.instructions_per_tick or 1.0, "instructions"
    if measured.time is not None:
        return measured.time.resolution_us, "us"
    return 1.0, "ticks"


def _spread(layer: LayerMeasurement) -> bool:
    return layer.low_ticks != layer.high_ticks


def _cost(ticks: int | None, scale: float) -> Text:
    if ticks is None:
        return Text("")
    return Text(f"{ticks * scale:,.0f}" if scale >= 1 else f"{ticks * scale:,.2f}")


def _fallback() -> Text:
    """Other layers have code made for this core; this one could not."""
    return Text("generic (fallback)", style="yellow")


def fleet_table(fleet: Fleet, *, name: str) -> RenderableType:
    """A line a device, side by side; then what failed and what is doubtful."""
    measured = fleet.measured
    counted = bool(measured) and all(one.instructions is not None for one in measured)
    columns = [">instructions"] if counted else [">median", ">IQR", ">min", ">p99"]
    table = plain_table("Device", "id", *columns, ">clock", ">to first", "")
    for column in table.columns[1:]:
        column.no_wrap = True
    first = next(iter(measured), None)
    for member in fleet.members:
        table.add_row(*_fleet_row(member, first, counted=counted))
    title = f"{name} on {len(fleet.members)} devices"
    if first is not None:
        title += f", {_kind(first)} each"
    parts: list[RenderableType] = [Text(title, style="bold"), table]
    for member in fleet.members:
        if member.measurement is None:
            parts.append(Text(f"{member.device}: {member.error}", style="red"))
        else:
            parts += [
                Text(f"{member.device}: {doubt}", style="yellow")
                for doubt in _doubts(member.measurement)
            ]
    if counted:
        parts.append(Text(f"Counts: {_EXACT}.", style="dim"))
    return Group(*parts)


def _fleet_row(member: FleetMember, first: Measurement | None, *, counted: bool) -> list[Text]:
    measured = member.measurement
    blank = Text("")
    if measured is None:
        blanks = [blank] * (4 if counted else 7)
        return [Text(member.device), *blanks, Text("✗", style="red")]
    if counted:
        figures = [Text(f"{measured.instructions:,}")]
    elif measured.time is not None:
        time = measured.time
        shown = (time.median_us, time.iqr_us, time.min_us, time.p99_us)
        figures = [Text(format_time(us, time.resolution_us)) for us in shown]
    else:
        figures = [Text(_other_figure(measured)), blank, blank, blank]
    origin = measured.provenance
    clock = f"{origin.clock_hz / 1e6:g} MHz" if origin is not None and origin.clock_hz else ""
    identity = origin.device_id[-8:] if origin is not None else ""
    mark = Text("!", "yellow") if _doubts(measured) else Text("✓", "green")
    return [
        Text(member.device), Text(identity), *figures, Text(clock),
        Text(_against(measured, first)), mark,
    ]  # fmt: skip


def _other_figure(measured: Measurement) -> str:
    return "no figure" if measured.instructions is None else f"{measured.instructions:,} instr."


def _against(measured: Measurement, first: Measurement | None) -> str:
    """Percent of the first device's figure, where both are of one kind."""
    if first is None or measured is first:
        return ""
    if measured.instructions is not None and first.instructions:
        return f"{100 * (measured.instructions / first.instructions - 1):+.2f} %"
    if measured.time is not None and first.time is not None and first.time.median_us:
        return f"{100 * (measured.time.median_us / first.time.median_us - 1):+.2f} %"
    return ""


def rounds_table(rounds: Sequence[Round]) -> Table:
    """A line a round of a watch, with what its median has moved by since the first."""
    timed = any(made.time is not None for made in rounds)
    figures = [">median", ">IQR", ">min", ">p99"] if timed else [">instructions"]
    table = plain_table(">round", *figures, ">drift", ">runs")
    for made in rounds:
        if made.time is not None:
            time = made.time
            shown = (time.median_us, time.iqr_us, time.min_us, time.p99_us)
            cells = [format_time(us, time.resolution_us) for us in shown]
        else:
            cells = ["no figure" if made.instructions is None else f"{made.instructions:,}"]
        table.add_row(str(made.number), *cells, f"{100 * made.drift:+.2f} %", f"{made.runs:,}")
    return table


def round_line(made: Round) -> str:
    """The same as one line of plain text."""
    if made.time is not None:
        time = made.time
        figures = (
            f"median {format_time(time.median_us, time.resolution_us)}, "
            f"IQR {format_time(time.iqr_us, time.resolution_us)}"
        )
    elif made.instructions is not None:
        figures = f"{made.instructions:,} instructions"
    else:
        figures = "no figure"
    drift = f"{100 * made.drift:+.2f} %"
    return f"round {made.number}: {figures}, drift {drift}, {made.runs:,} runs in all"
