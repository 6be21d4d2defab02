"""An image folder made by hand: bytes in flash, and the manifest that names them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_image import manifest_of

from edgecompress.record_base import sha256_file
from edgecompress.target.registry import load_target

MakeImage = Callable[..., Path]


def _elf(address: int, content: bytes) -> bytes:
    """A 32-bit little-endian Arm ELF file of one segment (System V ABI, chapters 4 and 5)."""
    header_bytes, entry_bytes = 52, 32
    start = header_bytes + entry_bytes
    header = b"\x7fELF\x01\x01\x01".ljust(16, b"\0") + struct.pack(
        "<2H5I6H", 2, 40, 1, address, header_bytes, 0, 0, header_bytes, entry_bytes, 1, 40, 0, 0
    )
    size = len(content)
    entry = struct.pack("<8I", 1, start, address, address, size, size, 5, 4)
    return header + entry + content


@pytest.fixture
def make_image(tmp_path: Path) -> MakeImage:
    """`make_image("stm32f446re", size=3000, at=0x08000000)` is a folder; contents are random."""

    def make(target: str, *, size: int = 3000, at: int | None = None) -> Path:
        profile = load_target(target)
        address = profile.region("flash").origin if at is None else at
        folder = tmp_path / f"image-{target}"
        folder.mkdir(exist_ok=True)
        content = np.random.default_rng(0).integers(0, 256, size, np.uint8).tobytes()
        (folder / "firmware.elf").write_bytes(_elf(address, content))
        # For the tests to compare with: what is flashed comes from the ELF file.
        (folder / "content").write_bytes(content)
        manifest = manifest_of(profile, "firmware.elf", sha256_file(folder / "firmware.elf"))
        (folder / "image.json").write_text(manifest.to_json())
        return folder

    return make
