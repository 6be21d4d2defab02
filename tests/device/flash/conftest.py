"""An image folder made by hand: bytes in flash, and the manifest that names them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from intelhex import IntelHex
from tiny_image import manifest_of

from edgecompress.record_base import sha256_file
from edgecompress.target.registry import load_target

MakeImage = Callable[..., Path]


@pytest.fixture
def make_image(tmp_path: Path) -> MakeImage:
    """`make_image("stm32f446re", size=3000, at=0x08000000)` is a folder; contents are random."""

    def make(target: str, *, size: int = 3000, at: int | None = None) -> Path:
        profile = load_target(target)
        address = profile.region("flash").origin if at is None else at
        folder = tmp_path / f"image-{target}"
        folder.mkdir(exist_ok=True)
        content = np.random.default_rng(0).integers(0, 256, size, np.uint8).tobytes()
        (folder / "firmware.elf").write_bytes(content)
        (folder / "firmware.bin").write_bytes(content)
        memory = IntelHex()
        memory.frombytes(content, offset=address)
        memory.write_hex_file(str(folder / "firmware.hex"))
        manifest = manifest_of(profile, "firmware.elf", sha256_file(folder / "firmware.elf"))
        (folder / "image.json").write_text(manifest.to_json())
        return folder

    return make
