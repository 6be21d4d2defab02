"""Tables of plans and models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgecompress.records import Plan
from edgecompress.units import format_bytes, format_count

if TYPE_CHECKING:
    from edgecompress.model.inspect import Inspection


def plain_table(*headings: str) -> Table:
    """Left-aligned first column, right-aligned others marked by a leading ">"."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for heading in headings:
        right = heading.startswith(">")
        table.add_column(heading.removeprefix(">"), justify="right" if right else "left")
    return table


def _budgeted(size: int, budget: int | None) -> Text:
    """ "812.3 KiB of 1.00 MiB (79.3 %)", red when over."""
    if not budget:
        return Text(format_bytes(size))
    style = "bold red" if size > budget else ""
    share = f"{100 * size / budget:.1f} %"
    return Text(f"{format_bytes(size)} of {format_bytes(budget)} ({share})", style=style)


def plan_table(plan: Plan, *, folder: Path | None = None) -> RenderableType:
    """What a plan keeps of each group and layer, and what it expects of the image."""
    predicted, budget = plan.predicted, plan.budget
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column()
    facts.add_row("Flash (predicted)", _budgeted(predicted.flash_bytes, budget.flash_bytes))
    facts.add_row("RAM (predicted)", _budgeted(predicted.ram_bytes, budget.ram_bytes))
    if predicted.peak_step:
        facts.add_row("Peak RAM at", Text(predicted.peak_step))
    if predicted.macs:
        facts.add_row("Work", f"{format_count(predicted.macs)} MACs")
    facts.add_row("Fine-tuning", f"{plan.finetune_steps} steps, seed {plan.seed}")
    if folder is not None:
        facts.add_row("Replay with", Text(f"edgecompress fit --plan {folder / 'plan.json'}"))
    parts: list[RenderableType] = [
        Text(f"Plan for {plan.target}, effort {plan.effort}", style="bold"),
        facts,
    ]
    if plan.widths:
        table = plain_table("Channel group", ">channels kept")
        for group, channels in plan.widths.items():
            table.add_row(Text(group), str(channels))
        parts += [Text(""), table]
    if plan.low_rank:
        table = plain_table("Layer", "method", ">ranks")
        for layer, choice in plan.low_rank.items():
            table.add_row(Text(layer), choice.method, " × ".join(map(str, choice.ranks)))
        parts += [Text(""), table]
    if plan.student is not None:
        words = f"The student {plan.student.name} learns from the model and takes its place."
        parts.append(Text(words))
    if plan.weights:
        table = plain_table("Layer", "weights stored as")
        for layer, storage in plan.weights.items():
            table.add_row(Text(layer), storage.format)
        parts += [Text(""), table]
    if not plan.widths and not plan.low_rank and not plan.weights and plan.student is None:
        parts.append(Text("int8 quantization alone is enough.", style="dim"))
    return Group(*parts)


def inspection_table(seen: Inspection) -> RenderableType:
    """A line a layer that has a buffer of its own; batch norms and activations have none."""
    table = plain_table("Layer", "op", ">output", ">MACs", ">weights int8", ">live int8", "")
    for layer in seen.layers:
        if layer.fused:
            continue
        weights = layer.weight_bytes_int8
        at_peak = layer.name == seen.peak_step
        table.add_row(
            Text(layer.name), Text(layer.op), _shape(layer.output_shape),
            format_count(layer.macs) if layer.macs else "",
            format_bytes(weights) if weights else "", format_bytes(layer.live_bytes_int8),
            "◀ peak" if at_peak else "", style="bold" if at_peak else "",
        )  # fmt: skip
    shapes = f"{_shape(seen.input_shape)} to {_shape(seen.output_shape)}"
    summary = Table.grid(padding=(0, 2, 0, 0))
    summary.add_column(style="dim", no_wrap=True)
    summary.add_column()
    summary.add_row("Work", f"{format_count(seen.macs)} MACs")
    weights = f"{format_bytes(seen.weight_bytes_int8)} as int8"
    if seen.weight_bytes_float:
        weights += f", {format_bytes(seen.weight_bytes_float)} as float"
    summary.add_row("Weights", weights)
    peak = f"{format_bytes(seen.peak_live_bytes_int8)} of int8 activations at {seen.peak_step}"
    summary.add_row("Peak", Text(peak))
    fused = sum(layer.fused for layer in seen.layers)
    if fused:
        summary.add_row("Fused", f"{fused}, listed with no line of their own")
    title = Text(f"{seen.name} ({seen.kind}), {shapes}", style="bold")
    return Group(title, table, Text(""), summary)


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
