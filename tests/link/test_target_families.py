"""One chip of each family links where its flash and RAM really are."""

from __future__ import annotations

from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from sample_programs import int8_program

from edgecompress.link.image import build_image, linker_script
from edgecompress.link.toolchain import run_zig, target_flags
from edgecompress.target import DeviceProfile, load_target, target_names

STUB = """
#include <stdint.h>
extern char edge_stack_top[];
void Reset_Handler(void);
__attribute__((section(".vectors"), used)) const void *vectors[] = {edge_stack_top, Reset_Handler};
__attribute__((section(".bss.model_arena"))) uint8_t model_arena[1024];
static volatile uint32_t kept = 7;
void Reset_Handler(void) { for (;;) model_arena[kept & 1023] = (uint8_t)kept; }
"""


def one_a_family() -> list[str]:
    """The first chip of each family; ports with start-up code of their own are linked elsewhere."""
    first: dict[str, str] = {}
    for name in target_names():
        profile = load_target(name)
        if profile.kind == "mcu" and profile.family and profile.core.isa != "rv32imc":
            first.setdefault(profile.family, name)
    return list(first.values())


def outside(firmware: Path, profile: DeviceProfile) -> list[str]:
    """Loaded or reserved ranges of the ELF that no region of the profile holds."""
    found = []
    with firmware.open("rb") as file:
        for segment in ELFFile(file).iter_segments("PT_LOAD"):
            for key, size in (("p_paddr", "p_filesz"), ("p_vaddr", "p_memsz")):
                begin, length = segment[key], segment[size]
                homes = [
                    region for region in profile.regions
                    if region.origin <= begin and begin + length <= region.origin + region.size
                ]  # fmt: skip
                if length and not homes:
                    found.append(f"{length} bytes at {begin:#010x}")
    return found


@pytest.mark.parametrize("name", one_a_family())
def test_a_chip_of_each_family_links_into_its_own_memories(name: str, tmp_path: Path) -> None:
    profile = load_target(name)
    (tmp_path / "stub.c").write_text(STUB, encoding="ascii")
    script = linker_script(profile, alignment=8)
    (tmp_path / "memory.ld").write_text(script, encoding="ascii")
    run_zig(
        ["cc", *target_flags(profile), "-Os", "-nostdlib", "-Wl,-T,memory.ld",
         "-Wl,-e,Reset_Handler", "-Wl,-z,max-page-size=4096", "stub.c", "-o", "firmware.elf"],
        folder=tmp_path,
        what=f"linking a stub for {name}",
    )  # fmt: skip
    assert not outside(tmp_path / "firmware.elf", profile)


@pytest.mark.parametrize("name", ["ama3b1kk", "stm32wl55jc", "mimxrt1062"])
def test_an_image_lies_in_odd_memories(name: str, tmp_path: Path) -> None:
    """Flash after a boot loader, an M4 without FPU, flash and RAM of an i.MX RT."""
    profile = load_target(name)
    build_image(int8_program(), profile, tmp_path, model_hash="cd" * 32)
    assert not outside(tmp_path / "firmware.elf", profile)
    assert (tmp_path / "lib" / "libmodel.a").is_file()
