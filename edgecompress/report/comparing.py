"""Two measurements compared, and a device compared with the host, as tables."""

from __future__ import annotations

from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgecompress.records import Comparison, DeviceVerification
from edgecompress.report.measuring import facts_grid, origin_rows
from edgecompress.report.tables import plain_table
from edgecompress.units import format_bytes


def verification_table(found: DeviceVerification, *, name: str) -> RenderableType:
    """Whether the device computes what the host does, and where first it does not."""
    checked = found.verification
    facts = facts_grid()
    of_all = f"{checked.samples:,} of {found.samples_asked:,} samples ({found.data})"
    facts.add_row("Samples", Text(of_all))
    facts.add_row("Layers", _layers_agree(found))
    if (difference := checked.first_difference) is not None:
        sides = ", ".join(
            f"{side} {value:g}"
            for side, value in zip(difference.sides, difference.values, strict=True)
        )
        where = f"sample {found.first_sample}, layer {difference.layer}, element "
        facts.add_row(
            "First difference", Text(f"{where}{list(difference.element)}: {sides}", "red")
        )
        per_layer = ", ".join(f"{layer} {count}" for layer, count in found.disagreements.items())
        facts.add_row("Samples by layer", Text(per_layer))
    if found.device_accuracy is not None:
        both = f"{found.device_accuracy:.2f} % top-1 on the device, {found.host_accuracy:.2f} % on "
        facts.add_row("Accuracy", f"{both}the host, same samples")
    for label, words in origin_rows(found.provenance):
        facts.add_row(label, Text(words))
    if found.stopped:
        facts.add_row(Text("Stopped", style="yellow"), Text(found.stopped, style="yellow"))
    return Group(Text(f"{name} on {found.device}", style="bold"), facts)


def _layers_agree(found: DeviceVerification) -> Text:
    checked = found.verification
    if checked.exact:
        return Text(f"{checked.layers}, each bit-exact: {' = '.join(checked.sides)}", "green")
    if found.agrees:
        return Text(
            f"{checked.layers}; float layers within {checked.tolerance:g} of their largest value",
            "green",
        )
    count = sum(found.disagreements.values())
    return Text(f"{checked.layers}; {count} of {checked.samples} samples disagree", "red")


def comparison_table(compared: Comparison, *, layers: bool = True) -> RenderableType:
    """Second over first: the ratio and its interval, layers, sizes, and what differs."""
    first, second = (Path(name) for name in (compared.first_name, compared.second_name))
    facts = facts_grid()
    facts.add_row("First", Text(str(first)))
    facts.add_row("Second", Text(str(second)))
    if compared.forced:
        facts.add_row(
            Text("Forced", style="bold red"),
            Text(f"unlike in {', '.join(compared.forced)}: no honest comparison", "bold red"),
        )
    facts.add_row("Ratio", _verdict(compared))
    facts.add_row("", Text(compared.method, style="dim"))
    parts: list[RenderableType] = [Text("Second against first", style="bold"), facts, Text("")]
    parts.append(_pair_table(compared))
    if layers and compared.layers:
        parts += [Text(""), _ratio_table(compared)]
    notes = facts_grid()
    for aspect, (one, two) in compared.differs.items():
        asked = ", as asked" if aspect in compared.allowed else ""
        notes.add_row(
            f"Differs: {aspect}{asked}", Text(f"{one or 'unknown'}  →  {two or 'unknown'}")
        )
    for warning in compared.warnings:
        notes.add_row(Text("Warning", style="yellow"), Text(warning, style="yellow"))
    if compared.differs or compared.warnings:
        parts += [Text(""), notes]
    return Group(*parts)


def _verdict(compared: Comparison) -> Text:
    ratio = compared.ratio
    if ratio.exact:
        text = Text(f"{ratio.value:.4f}", "bold")
        return text.append(f", {_percent(ratio.value)}", "not bold")
    text = Text(f"{ratio.value:.4f}", style="bold")
    text.append(f" ({ratio.low:.4f} to {ratio.high:.4f}), ", style="not bold")
    if not ratio.resolved:
        return text.append("no difference resolved", style="not bold yellow")
    return text.append(_percent(ratio.value), style="not bold")


def _percent(ratio: float) -> str:
    if ratio == 1:
        return "the same"
    return f"{abs(100 * (ratio - 1)):.2f} % {'more' if ratio > 1 else 'less'}"


def _pair_table(compared: Comparison) -> Table:
    table = plain_table("", ">first", ">second", ">change")
    if compared.unit == "us":
        costs = [f"{cost:,.1f} us" for cost in (compared.first, compared.second)]
    else:
        costs = [f"{cost:,.0f}" for cost in (compared.first, compared.second)]
    table.add_row("Median time" if compared.unit == "us" else "Instructions", *costs,
                  _change(compared.first, compared.second))  # fmt: skip
    for label, (one, two) in (("Flash", compared.flash_bytes), ("RAM", compared.ram_bytes)):
        table.add_row(label, format_bytes(one), format_bytes(two), _change(one, two))
    return table


def _change(one: float, two: float) -> str:
    return f"{100 * (two / one - 1):+.2f} %" if one else ""


def _ratio_table(compared: Comparison) -> Table:
    table = plain_table("Layer", f">first {compared.unit}", f">second {compared.unit}", ">ratio")
    for layer in compared.layers:
        table.add_row(
            Text(layer.name), _layer_cost(layer.first), _layer_cost(layer.second),
            "" if layer.ratio is None else f"{layer.ratio:.3f}",
        )  # fmt: skip
    return table


def _layer_cost(cost: float | None) -> str:
    return "absent" if cost is None else f"{cost:,.0f}" if cost >= 100 else f"{cost:,.2f}"
