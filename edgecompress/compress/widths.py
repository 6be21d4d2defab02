"""How many channels each group keeps when only an overall ratio is given."""

from __future__ import annotations

import math
from collections.abc import Mapping

from edgecompress.compress.channels import ChannelMap, map_channels
from edgecompress.compress.groups import group_labels
from edgecompress.compress.prune import least_width
from edgecompress.errors import BadInput
from edgecompress.model.trainable import Trainable
from edgecompress.target.schema import DeviceProfile


def kernel_multiple(profile: DeviceProfile) -> int:
    """The channel multiple that leaves no ragged ends in a target's inner loops.

    Cortex-M and RISC-V kernels take inputs in fours; Helium, aarch64 and x86 work on 8 or more
    bytes at once.
    """
    wide = profile.core.mve or profile.core.isa in ("armv8-a", "x86-64", "cuda")
    return 8 if wide else 4


def uniform_widths(trainable: Trainable, ratio: float, *, multiple_of: int = 1) -> dict[str, int]:
    """Group -> the channels kept when every group loses about the share `ratio` of its own.

    Args:
        ratio: 0 <= ratio < 1, the share removed.
        multiple_of: widths are rounded to the nearest multiple, at least one of it, at most what
            there is.

    Raises:
        BadInput: ratio or multiple out of range, or no group can be pruned.
    """
    _check(ratio, multiple_of)
    channels, groups = _groups(trainable)
    return {
        name: _rounded(trainable, channels, labels, (1 - ratio) * len(labels), multiple_of)
        for name, labels in groups.items()
    }


def global_widths(
    trainable: Trainable,
    ratio: float,
    scores: Mapping[int, float],
    *,
    normalize: bool = True,
    multiple_of: int = 1,
) -> dict[str, int]:
    """Group -> the channels kept when the weakest share `ratio` of all channels goes, wherever.

    One threshold over the network, as in network slimming (Liu et al., 2017, section 3) where
    BatchNorm scales are compared as they are. Other criteria differ in size from layer to layer:
    each group's scores are divided by their l2 norm first (Molchanov et al., 2017, section 2.2,
    "Normalization").

    Args:
        scores: of `criteria.channel_scores`.

    Raises:
        BadInput: as `uniform_widths`, or the criterion says nothing about any group.
    """
    _check(ratio, multiple_of)
    channels, groups = _groups(trainable)
    scored = {
        name: labels for name, labels in groups.items() if all(label in scores for label in labels)
    }
    if not scored:
        raise BadInput("The criterion has no score for any group.",
                       next_step="Use another criterion, such as l2.")  # fmt: skip
    ranked: list[tuple[float, str, int]] = []
    for name, labels in scored.items():
        norm = math.sqrt(sum(scores[label] ** 2 for label in labels)) if normalize else 1.0
        ranked += [(scores[label] / max(norm, 1e-30), name, label) for label in labels]
    ranked.sort()
    kept = {name: len(labels) for name, labels in scored.items()}
    for _, name, _ in ranked[: round(ratio * len(ranked))]:
        kept[name] -= 1
    return {
        name: _rounded(trainable, channels, scored[name], width, multiple_of)
        for name, width in kept.items()
    }


def _groups(trainable: Trainable) -> tuple[ChannelMap, dict[str, list[int]]]:
    channels = map_channels(trainable)
    groups = group_labels(trainable, channels)
    if not groups:
        raise BadInput(
            "The model has no prunable layer: every channel reaches the output or is mixed with "
            "others.",
            next_step="Use --method lowrank, sparsify or quantize.",
        )
    return channels, groups


def _check(ratio: float, multiple_of: int) -> None:
    if not 0 <= ratio < 1:
        raise BadInput(
            f"A pruning ratio of {ratio:g} is out of range.",
            next_step="Give the share of channels to remove, from 0 to below 1, such as 0.5.",
        )
    if multiple_of < 1:
        raise BadInput(f"Widths cannot be multiples of {multiple_of}; give at least 1.")


def _rounded(
    trainable: Trainable, channels: ChannelMap, labels: list[int], width: float, multiple_of: int
) -> int:
    nearest = multiple_of * math.floor(width / multiple_of + 0.5)
    least = least_width(trainable, channels, labels)
    return min(len(labels), max(nearest, multiple_of, least))
