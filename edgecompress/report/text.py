"""The final table: what a `Result` says, on a screen and in report.txt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgecompress.lower.patch_wording import patch_sentence
from edgecompress.records import Accuracy, Result
from edgecompress.report.codecs import codec_table
from edgecompress.report.memory import regions_sentence, shortage_sentence, way_out
from edgecompress.report.search import search_tables, sensitive_layers
from edgecompress.units import format_bytes, format_count, format_us

REPORT_COLUMNS = 100
_BAR_CELLS = 20
_NOTABLE_DEVIATION = 2.0
"""Percent: a larger gap between prediction and image is worth the reader's eye (DESIGN, 3.1)."""
_LISTED_FLOAT_LAYERS = 8

_PART_LABELS = {
    "io": "input and output",
    "stack": "stack high-water",
    "stack_reserve": "stack reserve",
    "model": "generated C",
    "data": "initialised data",
}


def render(result: Result, *, folder: Path | None = None) -> RenderableType:
    """The whole report of one result.

    Args:
        folder: where the files are, when they are there to be named.
    """
    parts: list[RenderableType] = [_banner(result), Text(""), _memory_table(result)]
    if _has_accuracy(result.accuracy):
        parts += [Text(""), _accuracy_table(result.accuracy)]
    codecs = codec_table(result.layers)
    if codecs is not None:
        parts += [Text(""), codecs]
    for table in search_tables(result):
        parts += [Text(""), table]
    parts += [Text(""), _facts(result, folder)]
    return Group(*parts)


def report_text(result: Result, *, folder: Path | None = None) -> str:
    """The same report as plain text, at most 100 columns wide, ending in a newline."""
    return plain_text(render(result, folder=folder))


def plain_text(renderable: RenderableType) -> str:
    """Any table as text for files and pipes: no colour, no trailing spaces, 100 columns."""
    console = Console(
        file=StringIO(), width=REPORT_COLUMNS, color_system=None, force_terminal=False,
        legacy_windows=False, highlight=False,
    )  # fmt: skip
    with console.capture() as capture:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def _banner(result: Result) -> Text:
    verdict, style = ("FITS", "bold green") if result.fits else ("DOES NOT FIT", "bold red")
    banner = Text(f"{result.model} on {result.target}: ", style="bold")
    banner.append(verdict, style=style)
    over = [
        f"{name} over by {format_bytes(use.used_bytes - use.budget_bytes)}"
        for name, use in (("flash", result.flash), ("RAM", result.ram))
        if use.budget_bytes is not None and use.used_bytes > use.budget_bytes
    ]
    if result.latency is not None and result.latency.used_us > result.latency.budget_us:
        over.append(f"time over by {format_us(result.latency.used_us - result.latency.budget_us)}")
    if over:
        banner.append(f" ({', '.join(over)})", style="red")
    return banner


def _memory_table(result: Result) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("Memory (KiB)", min_width=20)
    for heading in ("used", "of budget", "predicted", "deviation"):
        table.add_column(heading, justify="right")
    table.add_column("")
    predicted = result.plan.predicted if result.plan else None
    _add_resource(
        table, "Flash", result.flash.used_bytes, result.flash.budget_bytes,
        result.flash.predicted_bytes, result.flash.sections,
        predicted.flash_parts if predicted else {},
    )  # fmt: skip
    _add_resource(
        table, "RAM", result.ram.used_bytes, result.ram.budget_bytes,
        result.ram.predicted_bytes, result.ram.parts, predicted.ram_parts if predicted else {},
    )  # fmt: skip
    return table


def _add_resource(
    table: Table,
    name: str,
    used: int,
    budget: int | None,
    predicted: int | None,
    parts: dict[str, int],
    predicted_parts: dict[str, int],
) -> None:
    over = budget is not None and used > budget
    table.add_row(
        Text(name, style="bold"), Text(_kib(used), style="bold red" if over else "bold"),
        _share(used, budget), _kib(predicted) if predicted else "", _deviation(used, predicted),
        _bar(used, budget),
    )  # fmt: skip
    for part, size in parts.items():
        expected = predicted_parts.get(part)
        table.add_row(
            f"  {_PART_LABELS.get(part, part)}", _kib(size), _share(size, budget),
            "" if expected is None else _kib(expected), "", "", style="dim",
        )  # fmt: skip


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _kib(size_bytes: int) -> str:
    return f"{size_bytes / 1024:,.1f}"


def _share(size: int, budget: int | None) -> str:
    return f"{100 * size / budget:.1f} %" if budget else ""


def _deviation(used: int, predicted: int | None) -> Text:
    if not predicted:
        return Text("")
    percent = 100 * (used - predicted) / predicted
    style = "yellow" if abs(percent) > _NOTABLE_DEVIATION else ""
    return Text(f"{percent:+.1f} %", style=style)


def _bar(used: int, budget: int | None) -> Text:
    if not budget:
        return Text("no stated limit", style="dim")
    filled = min(_BAR_CELLS, round(_BAR_CELLS * used / budget))
    bar = Text("█" * filled, style="red" if used > budget else "green")
    bar.append("░" * (_BAR_CELLS - filled), style="dim")
    return bar.append(f" of {format_bytes(budget)}")


def _has_accuracy(accuracy: Accuracy) -> bool:
    return any(side is not None for side in (accuracy.source, accuracy.deployed, accuracy.device))


def _accuracy_table(accuracy: Accuracy) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column(f"Accuracy ({accuracy.metric})", min_width=20)
    for heading in ("", "change", "samples"):
        table.add_column(heading, justify="right", min_width=9)
    sides = (
        ("source", "source model"),
        ("deployed", "deployed, on host"),
        ("device", "deployed, on device"),
    )
    for side, label in sides:
        value = getattr(accuracy, side)
        if value is None:
            continue
        samples = accuracy.samples.get(side)
        table.add_row(
            f"  {label}", _accuracy(value, accuracy.metric), _accuracy_change(accuracy, side),
            "" if samples is None else f"{samples:,}",
        )  # fmt: skip
    return table


def _accuracy_change(accuracy: Accuracy, side: str) -> str:
    """Points against the source model; a subset of its samples has no comparable change."""
    value = getattr(accuracy, side)
    if side == "source" or accuracy.source is None:
        return ""
    if accuracy.samples.get(side) != accuracy.samples.get("source"):
        return "subset"
    change = _accuracy(abs(value - accuracy.source), accuracy.metric)
    return f"{'-' if value < accuracy.source else '+'}{change}"


def _accuracy(value: float, metric: str) -> str:
    """Percentages to two places, anything else to four digits."""
    return f"{value:.2f}" if "%" in metric else f"{value:.4g}"


def _facts(result: Result, folder: Path | None) -> Table:
    """Label and sentence, one fact a line."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(min_width=20, style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, sentence in (
        ("Too little RAM", shortage_sentence(result)),
        ("Cheapest way out", way_out(result)),
        ("Memories", regions_sentence(result)),
        ("Cost", _cost(result)),
        ("Time", _time(result)),
        ("Time budget", _time_budget(result)),
        ("Verified", _verification(result)),
        ("Against source", _against_source(result)),
        ("Float layers", _float_layers(result)),
        ("Fallback", _fallback_layers(result)),
        ("Optimized for", _optimized(result)),
        ("In stripes", _stripes(result)),
        ("Plan", _plan(result)),
        ("Selected by", result.objective),
        ("Most sensitive", sensitive_layers(result)),
    ):
        if sentence:
            table.add_row(label, sentence)
    for note in result.notes:
        table.add_row("Note", Text(note))
    if folder is not None:
        table.add_row("Files", _files(folder))
    return table


def _time_budget(result: Result) -> str:
    latency = result.latency
    if latency is None:
        return ""
    share = 100 * latency.used_us / latency.budget_us
    upper = "upper end of the estimate" if latency.label == "estimate" else latency.label
    predicted = f"; predicted {format_us(latency.predicted_us)}" if latency.predicted_us else ""
    return (
        f"{format_us(latency.used_us)} of {format_us(latency.budget_us)} ({share:.1f} %), "
        f"{upper}{predicted}"
    )


def _stripes(result: Result) -> Text:
    """Layers computed some rows at a time because the arena was too large."""
    return Text(patch_sentence(result.patches))


def _files(folder: Path) -> Text:
    names = sorted(f"{p.name}/" if p.is_dir() else p.name for p in folder.iterdir())
    return Text(f"{folder}/: {', '.join(names)}" if names else f"{folder}/")


def _cost(result: Result) -> Text:
    macs = f"{format_count(result.macs)} MACs" if result.macs else ""
    if result.instructions is None:
        return Text(macs)
    label = "exact, emulated" if result.label == "emulated instructions" else result.label
    kind = label + (f" on {result.device}" if result.device else "")
    text = Text(f"{result.instructions:,}", style="bold")
    text.append(f" instructions an inference ({kind})", style="not bold")
    return text.append(f", {macs}" if macs else "", style="not bold")


def _time(result: Result) -> Text | None:
    if result.label == "measured on device" and result.latency_us is not None:
        device = f" on {result.device}" if result.device else ""
        return Text(f"{format_us(result.latency_us)} an inference, measured{device}")
    if result.time_estimate is not None:
        estimate = result.time_estimate
        low, high = format_us(estimate.low_us), format_us(estimate.high_us)
        clock_mhz = estimate.clock_hz / 1e6
        span = low if low == high else f"{low} to {high}"
        return Text(
            f"{span} at {clock_mhz:g} MHz: an estimate, not a measurement ({estimate.source})"
        )
    return Text("compiled, not run") if result.label == "compiled, not run" else None


def _verification(result: Result) -> Text:
    checked = result.verified
    if checked.first_difference is not None:
        difference = checked.first_difference
        sides = " and ".join(
            f"{side} {value:g}"
            for side, value in zip(difference.sides, difference.values, strict=True)
        )
        where = f"{difference.layer} element {list(difference.element)}"
        return Text(f"differs first at {where}: {sides}", style="red")
    if not checked.samples:
        return Text("not run", style="yellow")
    kind = "bit-exact" if checked.exact else "not bit-exact"
    if checked.tolerance is not None:
        kind = f"float layers within {checked.tolerance:g} of their largest value"
    layers, samples = _counted(checked.layers, "layer"), _counted(checked.samples, "sample")
    return Text(
        f"{kind}: {' = '.join(checked.sides)}, {layers} × {samples}",
        style="green" if checked.agrees else "red",
    )


def _against_source(result: Result) -> Text | None:
    compared = result.against_source
    if compared is None:
        return None
    samples = _counted(compared.samples, "sample")
    if compared.max_abs_error == 0:
        return Text(f"outputs equal those of {compared.reference} ({samples})")
    text = (
        f"outputs differ from {compared.reference} by {compared.mean_abs_error:.3g} on average, "
        f"{compared.max_abs_error:.3g} at most ({samples})"
    )
    if compared.top1_agreement_percent is not None:
        text += f"; same top-1 on {compared.top1_agreement_percent:.1f} %"
    return Text(text)


def _optimized(result: Result) -> Text | None:
    """The goal the kernels were chosen for, and what the others would trade, as predicted."""
    chosen = {trade.optimize: trade for trade in result.trades}
    if (own := chosen.pop(result.optimize, None)) is None:
        return None
    others = [
        f"{goal} {trade.code_bytes - own.code_bytes:+,d} B of code, "
        f"{trade.arena_bytes - own.arena_bytes:+,d} B of arena, "
        f"{100 * (trade.instructions / own.instructions - 1):+.1f} % instructions"
        for goal, trade in chosen.items()
    ]
    return Text(f"{result.optimize}; predicted for {'; for '.join(others)}")


def _float_layers(result: Result) -> Text | None:
    layers = result.float_layers
    return Text(_listed(layers), "yellow") if layers else None


def _fallback_layers(result: Result) -> Text | None:
    """Where this core has kernels of its own, the layers that run the portable one instead."""
    layers = [layer.name for layer in result.layers if not layer.implementation]
    if not layers or len(layers) == len(result.layers):
        return None
    return Text(f"{_listed(layers)}: portable kernel, as none made for this core is cheaper")


def _listed(layers: Sequence[str]) -> str:
    names = ", ".join(layers[:_LISTED_FLOAT_LAYERS])
    more = len(layers) - _LISTED_FLOAT_LAYERS
    return f"{len(layers)}: {names}" + (f" and {more} more" if more > 0 else "")


def _plan(result: Result) -> Text | None:
    plan = result.plan
    if plan is None:
        return None
    done = ["int8"]
    if plan.student is not None:
        done.append(f"{plan.student.name} in the model's place")
    if plan.widths:
        done.append(f"{_counted(len(plan.widths), 'channel group')} narrowed")
    if plan.low_rank:
        done.append(f"{_counted(len(plan.low_rank), 'layer')} factorized")
    stored = Counter(storage.format for storage in plan.weights.values())
    done += [f"{_counted(count, 'layer')} in {name}" for name, count in sorted(stored.items())]
    if plan.finetune_steps:
        done.append(_counted(plan.finetune_steps, "fine-tuning step"))
    seconds = sum(result.seconds.values())
    took = f"; {seconds:.0f} s in all" if seconds else ""
    return Text(f"{', '.join(done)} (seed {plan.seed}, effort {plan.effort}){took}")
