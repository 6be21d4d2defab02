"""Patch-based inference: the layers with the largest maps, some rows at a time."""

from edgecompress.lower.passes.patch.choose import Fitted, patch_to_fit
from edgecompress.lower.passes.patch.stage import Stage, patched
from edgecompress.lower.passes.patch.stripe import CannotStripe

__all__ = ["CannotStripe", "Fitted", "Stage", "patch_to_fit", "patched"]
