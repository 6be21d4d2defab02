"""A patched stage in words: for the screen, and for the way out where a budget is too small."""

from __future__ import annotations

from edgecompress.records import PatchReport
from edgecompress.units import format_bytes


def patch_sentence(patch: PatchReport) -> str:
    """Which layers, how many stripes, what it saves and what it costs."""
    return (
        f"{_layers(patch)} run in {patch.stripes} stripes: the arena takes "
        f"{format_bytes(patch.arena_after_bytes)} instead of "
        f"{format_bytes(patch.arena_before_bytes)}, for {patch.extra_macs_percent:g} % more MACs."
    )


def patch_offer(patch: PatchReport) -> str:
    """What stripes would do where they do not do enough: a clause without a full stop."""
    return (
        f"{_layers(patch)} in {patch.stripes} stripes would bring the arena to "
        f"{format_bytes(patch.arena_after_bytes)} (+{patch.extra_macs_percent:g} % MACs)"
    )


def _layers(patch: PatchReport) -> str:
    if patch.layers == 1:
        return f"Layer {patch.first_layer}"
    return f"Layers {patch.first_layer} to {patch.last_layer}"
