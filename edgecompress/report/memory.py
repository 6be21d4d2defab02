"""What the report says of memory beside its table: each region, the fullest step, the way out."""

from __future__ import annotations

from rich.text import Text

from edgecompress.lower.patch_wording import patch_offer
from edgecompress.memory_records import describe_peak
from edgecompress.records import Result
from edgecompress.units import format_bytes


def regions_sentence(result: Result) -> Text | None:
    """Where the device has several of a kind, what the image takes of each; else None."""
    kinds = [region.kind for region in result.regions]
    several = [region for region in result.regions if kinds.count(region.kind) > 1]
    if not several:
        return None
    parts = [
        f"{region.name} {format_bytes(region.used_bytes)} of {format_bytes(region.size_bytes)}"
        for region in several
    ]
    return Text(f"{', '.join(parts)} (the stack's whole reserve included)")


def shortage_sentence(result: Result) -> Text | None:
    """What is live at the fullest step of an image over its RAM budget; else None."""
    limit = result.ram.budget_bytes
    if limit is None or result.ram.used_bytes <= limit or result.memory is None:
        return None
    used = result.ram.used_bytes
    return Text(
        f"{format_bytes(used)} needed, {format_bytes(limit)} allowed. "
        f"{describe_peak(result.memory)}",
        style="red",
    )


def way_out(result: Result) -> Text | None:
    """The cheapest next step for an image over a budget; else None."""
    steps = []
    for name, use in (("flash", result.flash), ("ram", result.ram)):
        if use.budget_bytes is not None and use.used_bytes > use.budget_bytes:
            steps.append(f"--{name} {-(-use.used_bytes // 1024)}K")
    if not steps:
        return None
    text = f"{' '.join(steps)} holds this model as it is"
    if "--ram" in steps[-1]:
        text += _less_arena(result)
    if result.command == "compile":
        text += "; `edgecompress fit` makes its float original smaller"
    return Text(f"{text}.")


def _less_arena(result: Result) -> str:
    """What would shrink the arena without being enough alone, as clauses."""
    own = [trade.arena_bytes for trade in result.trades if trade.optimize == result.optimize]
    least = min(result.trades, key=lambda trade: trade.arena_bytes, default=None)
    text = ""
    if least is not None and own and least.arena_bytes < own[0]:
        saved = format_bytes(own[0] - least.arena_bytes)
        text += f"; --optimize {least.optimize} takes {saved} less of the arena"
    if result.nearest_patch is not None:
        text += f"; {patch_offer(result.nearest_patch)}, still too much"
    return text
