"""The start-up's own arithmetic, run by Unicorn."""

from __future__ import annotations

import itertools
import random
import shutil
from pathlib import Path

import unicorn.arm_const as arm
import unicorn.unicorn_const as const
from elftools.elf.elffile import ELFFile
from unicorn.unicorn_py3 import Uc

from edgecompress.link.toolchain import compile_c, run_zig, target_flags
from edgecompress.paths import shipped
from edgecompress.target import load_target

_RETURN = 0x8000


def _multiplier(folder: Path) -> tuple[Uc, int]:
    """A Cortex-M0+ with `__muldi3` alone, and its address."""
    profile = load_target("cortex-m0plus")
    shutil.copy(shipped("runtimes") / "startup" / "compiler_names.c", folder)
    compile_c(["compiler_names.c"], [], profile, folder=folder)
    (folder / "alone.ld").write_text(
        "SECTIONS { .text 0x1000 : { *(.text .text.*) } /DISCARD/ : { *(.ARM.*) } }"
    )
    run_zig(
        ["cc", *target_flags(profile), "-nostdlib", "-Wl,--gc-sections", "-Wl,-e,__muldi3",
         "-Wl,-T,alone.ld", "compiler_names.o", "-o", "alone.elf"],
        folder=folder, what="linking __muldi3",
    )  # fmt: skip
    engine = Uc(const.UC_ARCH_ARM, const.UC_MODE_THUMB)
    engine.ctl_set_cpu_model(arm.UC_CPU_ARM_CORTEX_M0)
    engine.mem_map(0, 0x10000)
    with (folder / "alone.elf").open("rb") as file:
        image = ELFFile(file)
        for segment in image.iter_segments("PT_LOAD"):
            engine.mem_write(segment["p_paddr"], segment.data())
        return engine, image.header["e_entry"] | 1


def test_the_m0_multiplies_64_bit_numbers(tmp_path: Path) -> None:
    engine, entry = _multiplier(tmp_path)
    corners = [0, 1, -1, 0xFFFF, 0x10000, 0xFFFFFFFF, 2**31, -(2**31), 2**63 - 1, -(2**63)]
    generator = random.Random(5)
    drawn = [generator.randrange(-(2**63), 2**63) >> generator.randrange(64) for _ in range(60)]
    pairs = [(a, b) for a in corners for b in corners] + list(itertools.pairwise(drawn))
    saved = {arm.UC_ARM_REG_R4: 0x44444444, arm.UC_ARM_REG_R5: 0x55555555}
    for a, b in pairs:
        words = [a & 0xFFFFFFFF, a >> 32 & 0xFFFFFFFF, b & 0xFFFFFFFF, b >> 32 & 0xFFFFFFFF]
        for number, word in enumerate(words):
            engine.reg_write(arm.UC_ARM_REG_R0 + number, word)
        for register, value in saved.items():
            engine.reg_write(register, value)
        engine.reg_write(arm.UC_ARM_REG_SP, 0xF000)
        engine.reg_write(arm.UC_ARM_REG_LR, _RETURN | 1)
        engine.emu_start(entry, _RETURN, count=100)
        low, high = (engine.reg_read(arm.UC_ARM_REG_R0 + number) for number in (0, 1))
        assert high << 32 | low == a * b & 0xFFFFFFFFFFFFFFFF, (a, b)
        assert engine.reg_read(arm.UC_ARM_REG_SP) == 0xF000
        assert {register: engine.reg_read(register) for register in saved} == saved
