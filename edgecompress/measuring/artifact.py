"""A folder that fit or compile wrote, and the device its image was made for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from edgecompress.device.harness import load_manifest
from edgecompress.errors import BadInput
from edgecompress.records import ImageManifest, Result
from edgecompress.target import DeviceProfile, load_target


@dataclass(frozen=True)
class Artifact:
    folder: Path
    manifest: ImageManifest
    profile: DeviceProfile

    def result(self) -> Result | None:
        """What the command that made it wrote; None where that is missing or of another version."""
        try:
            return Result.from_json((self.folder / "result.json").read_bytes())
        except (OSError, ValidationError):
            return None

    def default_device(self) -> str:
        """See `default_device`."""
        return default_device(self.profile)

    def sample(self) -> np.ndarray:
        """The input that is measured: zeros, the same wherever a number is to be repeated."""
        spec = self.manifest.inputs[0]
        return np.zeros(spec.shape, spec.dtype)


def open_artifact(folder: Path, target: str | None = None) -> Artifact:
    """Reads image.json, compares the firmware's hash, and finds the target.

    Args:
        target: where image.json's target is not a shipped one, its name or TOML.

    Raises:
        BadInput: no image, a damaged one, or an unknown target.
    """
    if not (folder / "image.json").is_file():
        raise BadInput(
            f"{folder} holds no image (image.json is missing).",
            next_step="Make one with `edgecompress fit` or `edgecompress compile`.",
        )
    manifest = load_manifest(folder)
    return Artifact(folder, manifest, load_target(target or manifest.target))


def default_device(profile: DeviceProfile) -> str:
    """The virtual board where Unicorn has the core, QEMU where only it does, else a process."""
    if profile.kind != "mcu":
        return "process"
    return "virtual" if profile.virtual is not None else "qemu"
