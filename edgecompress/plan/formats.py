"""Which weight storages make an image smaller on a device: asked of the compiler, once."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import fx, nn

from edgecompress.model.trainable import Trainable
from edgecompress.plan.preview import preview
from edgecompress.records import WeightStorage
from edgecompress.target.schema import DeviceProfile

OFFERED = (WeightStorage(format="int4"), WeightStorage(format="sparse", sparsity=0.75))
_CHANNELS = 64
_LEAST_SAVING = 0.9

_profiles: dict[str, DeviceProfile] = {}


def encoded_formats(
    profile: DeviceProfile, offered: tuple[WeightStorage, ...] = OFFERED
) -> tuple[WeightStorage, ...]:
    """The storages offered that take clearly fewer bytes than int8 on this device."""
    if profile.kind != "mcu":
        return ()
    key = profile.content_hash()
    _profiles[key] = profile
    return _encoded(key, offered)


@cache
def _encoded(key: str, offered: tuple[WeightStorage, ...]) -> tuple[WeightStorage, ...]:
    dense = _weight_bytes(_profiles[key], None)
    return tuple(
        storage
        for storage in offered
        if _weight_bytes(_profiles[key], storage) < _LEAST_SAVING * dense
    )


def _weight_bytes(profile: DeviceProfile, storage: WeightStorage | None) -> int:
    """Constants of one 3x3 convolution of 64 by 64 channels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1)
    net = fx.symbolic_trace(nn.Sequential(layer).eval())
    example = torch.zeros(1, _CHANNELS, 4, 4)
    samples = np.random.default_rng(0).normal(size=(4, *example.shape[1:])).astype(np.float32)
    weights = {} if storage is None else {"0": storage}
    if storage is not None and storage.format == "sparse":
        with torch.no_grad():
            flat = layer.weight.flatten()
            smallest = flat.abs().argsort()[: int(storage.sparsity * len(flat))]
            flat[smallest] = 0.0
    found = preview(Trainable(net, example, "x", "y"), samples, profile, weights=weights)
    return found.flash_parts["weights"]
