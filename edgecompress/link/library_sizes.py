"""What a program's compiled objects hold, before anything is linked."""

from __future__ import annotations

import tempfile
from pathlib import Path

from elftools.elf.elffile import ELFFile

from edgecompress.link.image import build_library
from edgecompress.lower.program import Program
from edgecompress.target.schema import DeviceProfile

_PART_OF_OBJECT = {
    "kernels.o": "kernels",
    "routine_kernels.o": "kernels",
    "model.o": "model",
    "weights.o": "weights",
}
_DISCARDED = (".ARM.exidx", ".ARM.extab", ".text.tvm.fp16", ".eh_frame", ".debug")
_ALLOCATED, _WRITABLE = 0x2, 0x1


def library_sizes(program: Program, profile: DeviceProfile) -> dict[str, int]:
    """Flash bytes of the model's own parts ("weights", "kernels", "model"): code and constants.

    The linker may still drop a little that nothing calls, and pads between sections.

    Raises:
        BuildFailed: TVM or the C toolchain refused.
    """
    sizes = {"weights": 0, "kernels": 0, "model": 0}
    with tempfile.TemporaryDirectory(prefix="edgecompress-") as scratch:
        build_library(program, profile, Path(scratch), model_hash="0" * 64)
        for path in (Path(scratch) / "lib").glob("*.o"):
            sizes[_PART_OF_OBJECT[path.name]] += _flash_bytes(path)
    return sizes


def _flash_bytes(path: Path) -> int:
    with path.open("rb") as file:
        return sum(
            section["sh_size"]
            for section in ELFFile(file).iter_sections()
            if section["sh_flags"] & _ALLOCATED
            and not section["sh_flags"] & _WRITABLE
            and not section.name.startswith(_DISCARDED)
        )
