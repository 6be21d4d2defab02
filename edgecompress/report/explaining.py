"""What `explain` prints: of a model what it would take, of a result where bytes and points went."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgecompress.records import Result
from edgecompress.report.memory import way_out
from edgecompress.report.search import ledger_table
from edgecompress.units import format_bytes, format_count

if TYPE_CHECKING:
    from edgecompress.explaining import Explanation, Weight

_LISTED = 5


def explanation_report(found: Explanation) -> RenderableType:
    """Why it does or does not fit, the ways out, where the bytes are, what is sensitive."""
    verdict = "fits as int8" if found.fits else "does not fit as int8"
    title = Text(f"{found.model} on {found.target}: {verdict} (predicted)", style="bold")
    parts: list[RenderableType] = [title, Text("")]
    if found.reason:
        parts += [Text(f"Why: {found.reason}", style="red"), Text("")]
    parts += [_ways(found), Text(""), Text(f"Next: {found.next_step}")]
    parts += [Text(""), _weights("Heaviest layers", found.heaviest)]
    if found.live:
        parts += [Text(""), _weights(f"Alive at {found.peak_step}", found.live)]
    if found.sensitivity:
        table = _table("Most sensitive to int4", ">damage")
        for item in found.sensitivity[:_LISTED]:
            table.add_row(f"  {item.layer}", f"{item.damage:.4g}")
        parts += [Text(""), table]
    return Group(*parts)


def result_report(result: Result) -> RenderableType:
    """The same of a finished result: measured sizes, what each stage cost, what is sensitive."""
    verdict = "fits" if result.fits else "does not fit"
    parts: list[RenderableType] = [
        Text(f"{result.model} on {result.target}: {verdict} (measured)", style="bold"),
        Text(""),
        _budgets(result),
    ]
    out = way_out(result)
    if out is not None:
        parts += [Text(""), Text("Cheapest way out: ").append_text(out)]
    if result.ledger:
        parts += [Text(""), ledger_table(result.ledger, result.objective)]
        parts += [Text(f"Dearest stage: {_dearest(result)}.")]
    heavy = sorted(result.layers, key=lambda layer: -layer.constant_bytes)[:_LISTED]
    if heavy and heavy[0].constant_bytes:
        table = _table("Heaviest layers", ">in flash", ">MACs")
        for layer in heavy:
            table.add_row(f"  {layer.name}", format_bytes(layer.constant_bytes),
                          format_count(layer.macs))  # fmt: skip
        parts += [Text(""), table]
    if result.sensitivity:
        table = _table("Most sensitive", "change", ">damage")
        for item in result.sensitivity[:_LISTED]:
            table.add_row(f"  {item.layer}", item.change, f"{item.damage:.4g}")
        parts += [Text(""), table]
    return Group(*parts)


def _dearest(result: Result) -> str:
    """The stage after which the score, or else the divergence, was worst against the one before."""
    costs = []
    for before, after in zip(result.ledger, result.ledger[1:], strict=False):
        lost = (
            after.divergence - before.divergence
            if before.value is None or after.value is None
            else before.value - after.value
        )
        costs.append((lost, after.stage))
    lost, stage = max(costs, default=(0.0, ""))
    return f"{stage}, {lost:.4g} lost" if lost > 0 else "none lost anything"


def _budgets(result: Result) -> Table:
    table = _table("", ">used", ">budget", ">left", "largest part")
    for name, use, parts in (
        ("Flash", result.flash, result.flash.sections), ("RAM", result.ram, result.ram.parts)
    ):  # fmt: skip
        largest = max(parts, key=lambda part: parts[part], default="")
        limit, left = "no limit", ""
        if use.budget_bytes is not None:
            over = use.used_bytes - use.budget_bytes
            limit = format_bytes(use.budget_bytes)
            left = f"{format_bytes(over)} over" if over > 0 else format_bytes(-over)
        shown = f"{largest} {format_bytes(parts[largest])}" if largest else ""
        table.add_row(name, format_bytes(use.used_bytes), limit, left, shown)
    return table


def _ways(found: Explanation) -> Table:
    table = _table("Form of the model", ">flash", ">RAM", ">MACs", "")
    for way in found.ways:
        table.add_row(
            f"  {way.change}", format_bytes(way.flash_bytes), format_bytes(way.ram_bytes),
            format_count(way.macs), "fits" if way.fits else "",
        )  # fmt: skip
    limits = [None if one is None else format_bytes(one)
              for one in (found.budget.flash_bytes, found.budget.ram_bytes)]  # fmt: skip
    table.add_row("  budget", limits[0] or "none", limits[1] or "none", "", "", style="dim")
    return table


def _weights(title: str, items: tuple[Weight, ...]) -> Table:
    table = _table(title, ">bytes")
    for item in items:
        table.add_row(f"  {item.name}", format_bytes(item.size_bytes))
    return table


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for heading in headings:
        right = heading.startswith(">")
        table.add_column(heading.removeprefix(">"), justify="right" if right else "left")
    return table
