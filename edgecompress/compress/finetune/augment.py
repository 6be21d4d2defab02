"""Images moved and mirrored a little, where the caller says that this changes no answer."""

from __future__ import annotations

import torch
from torch import nn

from edgecompress.compress.finetune.recipe import Recipe
from edgecompress.errors import BadConfig


def augments(recipe: Recipe, x: torch.Tensor) -> bool:
    """Whether the recipe changes inputs like x.

    Raises:
        BadConfig: it does, but x is no image [N, C, H, W], or is smaller than its shift.
    """
    if recipe.shift_pixels == 0 and not recipe.mirror:
        return False
    if x.dim() != 4:
        raise BadConfig(
            f"Only images can be shifted or mirrored; the model takes {list(x.shape[1:])}."
        )
    if recipe.shift_pixels >= min(x.shape[2:]):
        size = f"{x.shape[2]} x {x.shape[3]}"
        raise BadConfig(f"shift_pixels is {recipe.shift_pixels}; the images are {size} pixels.")
    return True


def augmented(x: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Every image by its own draw: moved by up to `shift_pixels` each way with zeros following,
    and mirrored left to right every second time.

    Args:
        x: [N, C, H, W].
    """
    reach, (samples, _, height, width) = recipe.shift_pixels, x.shape
    if reach:
        padded = nn.functional.pad(x, (reach, reach, reach, reach))
        down, right = torch.randint(0, 2 * reach + 1, (2, samples, 1), device=x.device)
        rows = (down + torch.arange(height, device=x.device))[:, None, :, None]
        columns = (right + torch.arange(width, device=x.device))[:, None, None, :]
        image = torch.arange(samples, device=x.device)[:, None, None, None]
        channel = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
        x = padded[image, channel, rows, columns]
    if recipe.mirror:
        turned = torch.rand(samples, 1, 1, 1, device=x.device) < 0.5
        x = torch.where(turned, x.flip(3), x)
    return x
