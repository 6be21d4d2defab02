"""The table of `compress`: sizes and accuracy before and after, and what became of each layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgecompress.units import format_bytes, format_count

if TYPE_CHECKING:
    from edgecompress.compression import Compression

_LISTED = 24
_HEADLINE = (
    "ratio", "criterion", "scope", "repair", "sparsity", "gradual", "factorization", "energy",
    "rank", "bits", "values", "layers", "observer", "rounding", "equalize", "correct_bias",
    "student",
)  # fmt: skip
"""Options worth the title; result.json has them all."""


def compression_table(result: Compression, *, folder: Path | None = None) -> RenderableType:
    """Everything a user compares: one row a quantity, then one row a changed layer."""
    shown = ((name, result.options.get(name)) for name in _HEADLINE)
    settings = ", ".join(_setting(name, value) for name, value in shown if value)
    parts: list[RenderableType] = [
        Text(f"{result.model}: {result.method} ({settings})", style="bold"),
        Text(""),
        _quantities(result),
    ]
    if result.changes:
        parts += [Text(""), _changes(result)]
    if folder is not None:
        tail = f", fine-tuned {result.finetune_steps} steps" if result.finetune_steps else ""
        place = f"{folder / result.file} ({result.form}{tail})"
        parts += [Text(""), Text(f"Written to {place}", style="dim")]
    return Group(*parts)


def _setting(name: str, value: object) -> str:
    if value is True:
        return name.replace("_", " ")
    return f"{name} {' '.join(map(str, value)) if isinstance(value, list) else value}"


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for heading in headings:
        right = heading.startswith(">")
        table.add_column(heading.removeprefix(">"), justify="right" if right else "left")
    return table


def _quantities(result: Compression) -> Table:
    table = _table("", ">before", ">after", ">change")
    before, after = result.before, result.after
    rows = (
        ("Parameters", before.parameters, after.parameters, format_count),
        ("Weights not zero", before.nonzero_weights, after.nonzero_weights, format_count),
        ("MACs", before.macs, after.macs, format_count),
        ("Weights in the file", before.file_weight_bytes, after.file_weight_bytes, format_bytes),
        ("Weights in an int8 image", before.image_weight_bytes, after.image_weight_bytes,
         format_bytes),
    )  # fmt: skip
    for name, old, new, shown in rows:
        change = f"{100 * (new - old) / old:+.1f} %" if old else ""
        table.add_row(name, shown(old), shown(new), change)
    percent = result.metric.endswith("%")
    for split, (old, new) in result.accuracy.items():
        label = Text(f"{result.metric.removesuffix(' %').capitalize()}, {split}")
        if percent:
            table.add_row(label, f"{old:.1f} %", f"{new:.1f} %", f"{new - old:+.1f} points")
        else:
            table.add_row(label, f"{old:.3g}", f"{new:.3g}", "")
    return table


def _changes(result: Compression) -> Table:
    table = _table("Layer", ">before", ">after")
    for change in result.changes[:_LISTED]:
        table.add_row(Text(change.layer), Text(change.before), Text(change.after))
    left = len(result.changes) - _LISTED
    if left > 0:
        table.add_row(Text(f"... and {left} more in result.json", style="dim"), "", "")
    return table
