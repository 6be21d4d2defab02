"""What a linked image occupies, read from its ELF file: the only source of "it fits"."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile
from intelhex import IntelHex

from edgecompress.link.uf2 import uf2_blocks, uf2_family
from edgecompress.records import RegionUse, SizeReport
from edgecompress.target.schema import DeviceProfile

_FLASH_PARTS: tuple[str, ...] = ("weights", "kernels", "model", "runtime", "vectors", "data")
_RAM_PARTS: tuple[str, ...] = ("arena", "scratch", "static", "io", "stack")
_PART_OF_SECTION = {
    ".vectors": "vectors",
    ".weights": "weights",
    ".kernels": "kernels",
    ".kernel_tables": "kernels",
    ".model": "model",
    ".model_tables": "model",
    ".model_arena": "arena",
    ".model_io": "io",
    ".stack": "stack",
}


@dataclass(frozen=True)
class Section:
    """An allocated section; `loaded` ones have bytes in flash (at `load_address`)."""

    name: str
    address: int
    load_address: int
    size: int
    loaded: bool
    writable: bool


def allocated_sections(elf: Path) -> list[Section]:
    """Every section of the image that occupies memory on the device."""
    with elf.open("rb") as file:
        image = ELFFile(file)
        segments = [item for item in image.iter_segments() if item["p_type"] == "PT_LOAD"]
        sections = []
        for section in image.iter_sections():
            flags, size = section["sh_flags"], section["sh_size"]
            if not flags & 0x2 or size == 0:  # SHF_ALLOC
                continue
            address = section["sh_addr"]
            shift = next(
                (
                    segment["p_paddr"] - segment["p_vaddr"]
                    for segment in segments
                    if segment["p_vaddr"] <= address < segment["p_vaddr"] + segment["p_memsz"]
                ),
                0,
            )
            loaded = section["sh_type"] != "SHT_NOBITS"
            writable = bool(flags & 0x1)  # SHF_WRITE
            sections.append(Section(section.name, address, address + shift, size, loaded, writable))
        return sections


def read_sizes(elf: Path, profile: DeviceProfile) -> SizeReport:
    """Flash by section and RAM by part; on a microcontroller each with the padding before it.

    So the flash sections of an mcu image add up to the length of its `.bin`, and the RAM parts to
    the span the linker laid out. A host's loader pads pages as it likes: there only sizes count.
    """
    sections = allocated_sections(elf)
    padded = profile.kind == "mcu"
    flash: dict[str, int] = dict.fromkeys(_FLASH_PARTS, 0)
    in_flash = [(item.load_address, item) for item in sections if item.loaded]
    for section, charged in _charged(in_flash, profile, "flash", padded=padded):
        fallback = "data" if section.writable else "runtime"
        flash[_part(section, fallback)] += charged
    ram: dict[str, int] = dict.fromkeys(_RAM_PARTS, 0)
    in_ram = [(item.address, item) for item in sections if item.writable or not item.loaded]
    for section, charged in _charged(in_ram, profile, "ram", padded=padded):
        ram[_part(section, "static")] += charged
    if profile.kind != "mcu":
        ram["stack"] = profile.stack_reserve
    return SizeReport(
        flash_sections=flash, ram_parts=ram, regions=_region_uses(in_flash + in_ram, profile)
    )


def _region_uses(
    placed: list[tuple[int, Section]], profile: DeviceProfile
) -> tuple[RegionUse, ...]:
    """From each region's start to the end of the last section in it."""
    uses = []
    for region in profile.regions:
        last = max(
            (
                address + section.size
                for address, section in placed
                if region.origin <= address < region.origin + region.size
            ),
            default=region.origin,
        )
        uses.append(
            RegionUse(
                name=region.name,
                kind=region.kind,
                used_bytes=last - region.origin,
                size_bytes=region.size,
            )
        )
    return tuple(uses)


def _part(section: Section, fallback: str) -> str:
    """The report's line for a section; ".model_arena.AXI" is the part of the arena in AXI."""
    kind = "." + section.name.lstrip(".").partition(".")[0]
    return _PART_OF_SECTION.get(section.name, _PART_OF_SECTION.get(kind, fallback))


def write_flash_images(elf: Path, profile: DeviceProfile) -> list[str]:
    """The loaded bytes at their flash addresses, beside the ELF: firmware.hex and raw binaries.

    firmware.bin is the first flash region's, firmware.QSPI.bin that of a region QSPI where it holds
    anything. Each begins at the lowest loaded address; gaps are 0xFF, as erased flash reads.
    firmware.uf2 as well for a chip whose boot ROM takes one.

    Returns:
        The files' names.
    """
    memory = IntelHex()
    memory.padding = 0xFF
    with elf.open("rb") as file:
        for segment in ELFFile(file).iter_segments():
            if segment["p_type"] == "PT_LOAD" and segment["p_filesz"]:
                memory.frombytes(segment.data(), offset=segment["p_paddr"])
    names = []
    flash = [region for region in profile.regions if region.kind == "flash"]
    for index, region in enumerate(flash):
        last = region.origin + region.size - 1
        here = [start for start, end in memory.segments() if region.origin <= start <= last]
        if not here and index:
            continue
        content = memory[region.origin : last + 1] if len(flash) > 1 else memory
        content.padding = 0xFF
        names.append("firmware.bin" if index == 0 else f"firmware.{region.name}.bin")
        (elf.parent / names[-1]).write_bytes(content.tobinstr())
    with (elf.parent / "firmware.hex").open("w", encoding="ascii", newline="\n") as file:
        memory.write_hex_file(file)
    names.append("firmware.hex")
    if (family := uf2_family(profile)) is not None:
        (elf.parent / "firmware.uf2").write_bytes(uf2_blocks(memory, family))
        names.append("firmware.uf2")
    return names


def _charged(
    placed: list[tuple[int, Section]], profile: DeviceProfile, kind: str, *, padded: bool
) -> list[tuple[Section, int]]:
    """Each section with its size, and where asked the gap to the section below it."""
    result = []
    ends = {region.origin: region.origin for region in profile.regions if region.kind == kind}
    for address, section in sorted(placed, key=lambda pair: pair[0]):
        charged = section.size
        if padded:
            origin = max((start for start in ends if start <= address), default=address)
            charged = address + section.size - ends.get(origin, address)
            ends[origin] = address + section.size
        result.append((section, charged))
    return result
