"""Which layers' weights are encoded in the image, what that saves and what it takes."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgecompress.records import LayerReport
from edgecompress.units import format_bytes


def codec_table(layers: Sequence[LayerReport]) -> RenderableType | None:
    """A line an encoded layer, and their sum; None where every layer keeps plain int8.

    Bytes and instructions are predicted, against the fastest code for plain weights.
    """
    encoded = [layer for layer in layers if layer.codec]
    if not encoded:
        return None
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for heading in ("Encoded layer", "codec"):
        table.add_column(heading)
    for heading in ("in flash", "saved", "instructions"):
        table.add_column(heading, justify="right")
    for layer in encoded:
        table.add_row(
            Text(layer.name), layer.codec, format_bytes(layer.constant_bytes),
            format_bytes(layer.codec_saved_bytes), f"{layer.codec_instructions:+,}",
        )  # fmt: skip
    if len(encoded) > 1:
        saved, spent = (
            sum(layer.codec_saved_bytes for layer in encoded),
            sum(layer.codec_instructions for layer in encoded),
        )
        stored = sum(layer.constant_bytes for layer in encoded)
        table.add_row(
            f"{len(encoded)} layers", "", format_bytes(stored), format_bytes(saved),
            f"{spent:+,}", style="bold",
        )  # fmt: skip
    return Group(table, Text("Predicted, against the fastest code for plain int8.", style="dim"))
