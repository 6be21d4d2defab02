"""Patch-based inference: the layers with the largest maps, some rows at a time."""

from edgecompress.lower.passes.patch.choose import (
    Fitted,
    arena_limit_bytes,
    least_memory,
    patch_to_fit,
)
from edgecompress.lower.passes.patch.stage import Stage, patched
from edgecompress.lower.passes.patch.stripe import CannotStripe
from edgecompress.lower.patch_wording import patch_offer, patch_sentence

__all__ = [
    "CannotStripe",
    "Fitted",
    "Stage",
    "arena_limit_bytes",
    "least_memory",
    "patch_offer",
    "patch_sentence",
    "patch_to_fit",
    "patched",
]
