"""Patched stages in words: for the screen, and for the way out where a budget is too small."""

from __future__ import annotations

from collections.abc import Sequence

from edgecompress.records import PatchReport
from edgecompress.units import format_bytes


def patch_sentence(patches: Sequence[PatchReport]) -> str:
    """Which layers run in stripes, what that saves and what it costs; "" for none."""
    if not patches:
        return ""
    before, after = patches[0].arena_before_bytes, patches[0].arena_after_bytes
    return (
        f"Layers {_stages(patches)}: the arena takes {format_bytes(after)} instead of "
        f"{format_bytes(before)}, for {_extra(patches)} % more MACs."
    )


def patch_offer(patch: PatchReport) -> str:
    """What stripes would do where they cannot do enough: a clause without a full stop."""
    after = format_bytes(patch.arena_after_bytes)
    return f"{_stages([patch])} would bring the arena to {after} (+{_extra([patch])} % MACs)"


def _stages(patches: Sequence[PatchReport]) -> str:
    return " and ".join(
        (f"{patch.first_layer} to {patch.last_layer}" if patch.layers > 1 else patch.first_layer)
        + f" in {patch.stripes} stripes"
        for patch in patches
    )


def _extra(patches: Sequence[PatchReport]) -> str:
    return f"{sum(patch.extra_macs_percent for patch in patches):.2g}"
