"""Writes a target TOML from what pyOCD or a CMSIS-Pack knows of a chip."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass, field

from edgecompress.errors import BadInput
from edgecompress.target.editor_schema import SCHEMA_LINE
from edgecompress.target.pyocd_chips import Chip, Memory, merged

PAGE_BYTES = 4096  # what the virtual board maps
_LARGEST_INTERNAL_RAM = 16 << 20
_LEAST_RAM = 2048
_SMALL_RAM = 8 << 10
_PARENTS = {
    "cortex-m0": "cortex-m0plus", "cortex-m0plus": "cortex-m0plus", "cortex-m3": "cortex-m3",
    "cortex-m4": "cortex-m4", "cortex-m7": "cortex-m7", "cortex-m33": "cortex-m33",
    "cortex-m35p": "cortex-m33", "cortex-m55": "cortex-m55",
}  # fmt: skip
# What the generic core's own TOML says of its FPU, and how to say less.
_PARENT_FPU = {"cortex-m4": "single", "cortex-m33": "single", "cortex-m7": "double",
               "cortex-m55": "double"}  # fmt: skip
_WITHOUT = {
    ("cortex-m4", "none"): ("cortex_m4", "thumbv7em-none-eabi", "soft", ""),
    ("cortex-m33", "none"): ("cortex_m33+dsp", "thumbv8m.main-none-eabi", "soft", ""),
    ("cortex-m7", "none"): ("cortex_m7", "thumbv7em-none-eabi", "soft", ""),
    ("cortex-m7", "single"): (
        "cortex_m7+fp_armv8d16sp", "thumbv7em-none-eabihf", "hard", ', mattr = ["-fp64"]',
    ),
}  # fmt: skip


@dataclass
class Draft:
    """A target file to be written, and what a person still has to do about it."""

    name: str
    text: str
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Placed:
    name: str
    memory: Memory
    banks: tuple[int, ...]


def parents() -> list[str]:
    """The cores a generated target can have."""
    return sorted(_PARENTS)


def draft(chip: Chip, *, core: str | None = None, name: str | None = None) -> Draft:
    """The TOML of a chip, inheriting everything else from its generic core.

    Args:
        core: the core's name where the source does not say, or says wrong.
        name: the target's name; by default the part number.

    Raises:
        BadInput: the core is unknown or has no generic target, or a memory is missing.
    """
    core_name = core or chip.core
    if core_name is None:
        raise BadInput(
            f"{chip.source} does not say which core {chip.part} has.",
            next_step=f"Give it with --core: {', '.join(parents())}.",
        )
    parent = _PARENTS.get(core_name)
    if parent is None:
        raise BadInput(
            f"{chip.part} has a {core_name}, for which there is no generic target.",
            next_step=f"Those there are: {', '.join(sorted(set(_PARENTS.values())))}.",
        )
    left_out: list[str] = []
    regions = _regions(chip, left_out)
    made = Draft(name=name or re.sub(r"[^a-z0-9.-]+", "-", chip.part).strip("-.")[:64], text="")
    unconfirmed = []
    if chip.clock_hz is None:
        unconfirmed.append("core.clock_hz")
        made.notes.append(
            "core.clock_hz is the generic core's: look up the rated clock in the datasheet, write "
            "it, and take it off `unconfirmed`. Times are estimated with it, nothing else."
        )
    fpu, fpu_note = _fpu(chip, parent)
    if fpu_note:
        unconfirmed.append("core.fpu")
        made.notes.append(fpu_note)
    made.notes.append(
        "There is no console: lib/libmodel.a is for your own firmware, firmware.elf for the "
        "virtual board. Where runtimes/ports has the chip's family, inherit from that family's "
        "target instead and set [console] as it does."
    )
    made.notes += left_out
    lines = _head(chip, made, parent, core_name, unconfirmed)
    stack_room = next(region.memory.size for region in regions if region.memory.kind == "ram")
    if stack_room <= _SMALL_RAM:
        lines.append(f"stack_reserve = {stack_room // 4}  # of {stack_room}: there is not more")
    lines += ["", "[core]"]
    lines.append(f'name = "{core_name}"')
    lines += [f"clock_hz = {chip.clock_hz:_}"] if chip.clock_hz else []
    lines += _less_fpu(parent, fpu)
    lines += _region_lines(regions)
    lines += _tail(chip, parent)
    made.text = "\n".join(lines) + "\n"
    return made


def _head(
    chip: Chip, made: Draft, parent: str, core_name: str, unconfirmed: list[str]
) -> list[str]:
    origin = "the CMSIS-Pack" if chip.pack else "pyOCD"
    listed = ", ".join(f'"{key}"' for key in unconfirmed)
    return [
        SCHEMA_LINE,
        f"# Written by `edgecompress targets new` from {origin}.",
        *(f"# - {_comment(note)}" for note in made.notes),
        "",
        f'inherits = "{parent}"',
        f'name = "{made.name}"',
        f'description = "{_quoted(chip.part.upper())}, {_quoted(chip.vendor)}, {core_name}"',
        f'source = "{_quoted(chip.source)}"',
        f'date = "{datetime.date.today().isoformat()}"',
        *([f"unconfirmed = [{listed}]"] if unconfirmed else []),
    ]


def _quoted(text: str) -> str:
    """Fit for a TOML basic string: a pack is a stranger's file."""
    plain = "".join(letter for letter in text if letter.isprintable())
    return plain.replace("\\", "\\\\").replace('"', '\\"')[:200]


def _comment(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())


def _fpu(chip: Chip, parent: str) -> tuple[str, str]:
    """What to claim of the FPU, never more than is known, and a note where it is not."""
    has = _PARENT_FPU.get(parent, "none")
    if isinstance(chip.fpu, str):
        return (chip.fpu if has != "none" else "none"), ""
    if has == "none" or chip.fpu is False:
        return "none", ""
    if chip.fpu is None:
        return "none", f"{chip.source} does not say whether there is an FPU; none is assumed."
    if has == "double":
        return "single", (
            f"{chip.source} says there is an FPU, not of which precision; single is assumed."
        )
    return has, ""


def _less_fpu(parent: str, fpu: str) -> list[str]:
    if fpu == _PARENT_FPU.get(parent, "none"):
        return []
    spelled = _WITHOUT.get((parent, fpu))
    if spelled is None:
        raise BadInput(f"A {parent} with FPU '{fpu}' has no generic toolchain settings.")
    zig, triple, abi, more = spelled
    llvm = (
        f'{{ kind = "llvm", mtriple = "{triple}", mcpu = "{parent}", mfloat-abi = "{abi}"{more} }}'
    )
    zig_target = "thumb-freestanding-eabi" + ("hf" if abi == "hard" else "")
    return [
        f'fpu = "{fpu}"', "", "[toolchain]", f"llvm = {llvm}", f'zig_target = "{zig_target}"',
        f'zig_cpu = "{zig}"',
    ]  # fmt: skip


def _regions(chip: Chip, left_out: list[str]) -> list[_Placed]:
    """Boot flash first, then RAM with the one for stack and variables first.

    Memories outside the chip, option bytes and scraps are left out, and listed.
    """
    flash: list[tuple[Memory, tuple[int, ...]]] = []
    rams: list[tuple[Memory, tuple[int, ...]]] = []
    booting = any(memory.boot for memory in chip.memories)
    for memory, banks in merged(chip.memories):
        usable = _in_pages(memory)
        whole = usable.size == memory.size and usable.origin == memory.origin
        fits = usable.size >= _LEAST_RAM and (
            memory.kind == "flash" or usable.size <= _LARGEST_INTERNAL_RAM
        )
        boots = memory.kind == "ram" or memory.boot or (not booting and not flash)
        if not (fits and boots):
            left_out.append(
                f"Left out: {memory.kind} {memory.name}, {memory.size} bytes at "
                f"{memory.origin:#010x}."
            )
            continue
        if not whole:
            left_out.append(
                f"{memory.name} has {memory.size} bytes; {usable.size} are whole pages of "
                f"{PAGE_BYTES} bytes, which the virtual board maps."
            )
        (flash if memory.kind == "flash" else rams).append((usable, banks if whole else ()))
    for kind, found in (("flash", flash), ("ram", rams)):
        if not found:
            raise BadInput(f"{chip.source} names no {kind} of {chip.part} that an image could use.")
    rams.sort(key=lambda ram: (ram[0].origin >> 28 != 2, -ram[0].size))
    taken: set[str] = set()
    return [_Placed(_region_name(memory, taken), memory, banks) for memory, banks in flash + rams]


def _in_pages(memory: Memory) -> Memory:
    origin = -(-memory.origin // PAGE_BYTES) * PAGE_BYTES
    size = max(0, (memory.end - origin) // PAGE_BYTES * PAGE_BYTES)
    return Memory(memory.kind, memory.name, origin, size, memory.boot)


def _region_name(memory: Memory, taken: set[str]) -> str:
    """The source's name as the linker takes it, unique."""
    name = re.sub(r"[^A-Z0-9_]", "_", memory.name.upper()).strip("_")
    if not name or name[0].isdigit():
        name = f"{memory.kind.upper()}_{name}".rstrip("_")
    unique, count = name, 1
    while unique in taken:
        count += 1
        unique = f"{name}_{count}"
    taken.add(unique)
    return unique


def _size(size_bytes: int) -> str:
    for unit, letter in ((1 << 20, "M"), (1 << 10, "K")):
        if size_bytes % unit == 0:
            return f'"{size_bytes // unit}{letter}"'
    return str(size_bytes)


def _region_lines(regions: list[_Placed]) -> list[str]:
    lines = []
    for region in regions:
        memory = region.memory
        lines += [
            "", "[[regions]]", f'name = "{region.name}"', f'kind = "{memory.kind}"',
            f"origin = {memory.origin:#010x}", f"size = {_size(memory.size)}",
        ]  # fmt: skip
        if region.banks:
            lines.append(f"banks = [{', '.join(map(_size, region.banks))}]")
    return lines


def _tail(chip: Chip, parent: str) -> list[str]:
    lines = ["", "[flashing]", 'tool = "pyocd"', f'pyocd_target = "{_quoted(chip.pyocd_target)}"']
    if chip.pack:
        lines.append(f'pack = "{_quoted(chip.pack)}"')
    if parent in ("cortex-m4", "cortex-m7", "cortex-m55"):
        lines += ["", "[qemu]", 'machine = ""  # no QEMU machine has this memory map']
    return lines
