"""What a program's compiled objects hold, before anything is linked or even written.

A search asks this of dozens of programs that differ in a few layers. Weights are counted, not
assembled; a routine is assembled once a process, whatever program it stands in.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from functools import lru_cache
from pathlib import Path

from elftools.elf.elffile import ELFFile

from edgecompress.link.image import ROUTINES_FILE
from edgecompress.link.toolchain import compile_c, target_flags
from edgecompress.lower.codegen import build_object
from edgecompress.lower.emit import constant_layout, emit_c, emit_text
from edgecompress.lower.program import Program
from edgecompress.target.schema import DeviceProfile

_DISCARDED = (".ARM.exidx", ".ARM.extab", ".text.tvm.fp16", ".eh_frame", ".debug")
_ALLOCATED, _WRITABLE = 0x2, 0x1
_NAME_BYTES = 16
"""Of a hash: enough that two texts never meet."""


def library_sizes(program: Program, profile: DeviceProfile) -> dict[str, int]:
    """Flash bytes of the model's own parts ("weights", "kernels", "model"): code and constants.

    The linker may still drop a little that nothing calls, and pads between sections.

    Raises:
        BuildFailed: TVM or the C toolchain refused.
    """
    header, source = emit_c(program, model_hash="0" * 64)
    kernels = sum(_routine_sizes(dict(program.assembly), profile).values())
    if program.has_functions:
        kernels += _flash_bytes(build_object(program.functions, dict(profile.toolchain.llvm)))
    return {
        "weights": _weight_bytes(program),
        "kernels": kernels,
        "model": _compiled_bytes(source, header, _Target(profile)),
    }


def _weight_bytes(program: Program) -> int:
    """As `emit_weights` lays them out: constants at the arena's alignment, a section a region."""
    ends: dict[str, int] = {}
    for constant in constant_layout(program):
        end = ends.get(constant.region, 0)
        begin = -(-end // program.arena_alignment) * program.arena_alignment
        ends[constant.region] = begin + constant.array.nbytes
    return sum(ends.values())


class _Target:
    """A profile as a key: equal where the compiler is called alike."""

    def __init__(self, profile: DeviceProfile) -> None:
        self.profile = profile
        self._flags = (*target_flags(profile), profile.kind)

    def __hash__(self) -> int:
        return hash(self._flags)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Target) and self._flags == other._flags


@lru_cache(maxsize=256)
def _compiled_bytes(source: str, header: str, target: _Target) -> int:
    with tempfile.TemporaryDirectory(prefix="edgecompress-") as scratch:
        folder = Path(scratch)
        (folder / "model.h").write_text(header, encoding="ascii")
        (folder / "model.c").write_text(source, encoding="ascii")
        (made,) = compile_c(["model.c"], (), target.profile, folder=folder)
        return _flash_bytes((folder / made).read_bytes())


_known_routines: dict[tuple[_Target, str], int] = {}
"""(machine, hash of a routine's text) -> bytes of its section."""


def _routine_sizes(routines: dict[str, str], profile: DeviceProfile) -> dict[str, int]:
    """Bytes of each routine; those not met before are assembled, in one file."""
    target = _Target(profile)
    keys = {
        name: (target, hashlib.sha256(text.encode()).hexdigest()[: 2 * _NAME_BYTES])
        for name, text in routines.items()
    }
    new = {name: text for name, text in routines.items() if keys[name] not in _known_routines}
    if new:
        with tempfile.TemporaryDirectory(prefix="edgecompress-") as scratch:
            folder = Path(scratch)
            (folder / ROUTINES_FILE).write_text(emit_text(new), encoding="ascii")
            (made,) = compile_c([ROUTINES_FILE], (), profile, folder=folder)
            sizes = _section_sizes((folder / made).read_bytes())
        for name in new:
            # a routine stands in a section of its own, named after it
            own = [size for section, size in sizes.items() if section.endswith(f".{name}")]
            _known_routines[keys[name]] = sum(own)
    return {name: _known_routines[keys[name]] for name in routines}


def _flash_bytes(content: bytes) -> int:
    return sum(_section_sizes(content).values())


def _section_sizes(content: bytes) -> dict[str, int]:
    """Bytes in flash of every section of an object file, those of one name together."""
    sizes: dict[str, int] = {}
    for section in ELFFile(io.BytesIO(content)).iter_sections():
        flags = section["sh_flags"]
        kept = flags & _ALLOCATED and not flags & _WRITABLE
        if kept and not section.name.startswith(_DISCARDED):
            sizes[section.name] = sizes.get(section.name, 0) + section["sh_size"]
    return sizes
