"""The processors Unicorn plays for the virtual board, and where they differ.

Cortex-M and RISC-V take their reset, name their registers, number their exceptions and mark the
length of an instruction each in its own way; the rest of the board is the same for both.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import unicorn.arm_const as arm
import unicorn.riscv_const as riscv
import unicorn.unicorn_const as const
from unicorn.unicorn_py3 import Uc

from edgecompress.device.peripherals.base import ControlRegister

InstructionSet = Literal["thumb", "riscv"]


@dataclass(frozen=True)
class Processor:
    """One of Unicorn's CPU models.

    Attributes:
        instruction_set: which rule tells an instruction's length.
        program_counter: Unicorn's number of the register.
        reset: (engine, start of flash) -> where execution begins; sets what the hardware sets.
        exceptions: the emulator's number of an exception -> what happened.
        undefined: what an instruction that does not exist raises.
    """

    instruction_set: InstructionSet
    architecture: int
    mode: int
    model: int
    program_counter: int
    reset: Callable[[Uc, int], int]
    exceptions: dict[int, str]
    undefined: str

    def engine(self) -> Uc:
        """A new machine without any memory."""
        engine = Uc(self.architecture, self.mode)
        engine.ctl_set_cpu_model(self.model)
        return engine


def _reset_cortex_m(engine: Uc, flash: int) -> int:
    """The vector table begins with the stack and the reset handler (Armv7-M ARM B1.5.3)."""
    stack, handler = struct.unpack("<II", bytes(engine.mem_read(flash, 8)))
    engine.reg_write(arm.UC_ARM_REG_SP, stack)
    return handler | 1


def _reset_riscv(_engine: Uc, flash: int) -> int:
    """Where a core begins is its maker's choice; here it is the first word of flash."""
    return flash


# QEMU's exception numbers for the M profile.
_CORTEX_M_EXCEPTIONS = {
    1: "an undefined instruction",
    2: "an SVC instruction, but nothing serves it",
    3: "a prefetch abort",
    4: "a data abort, likely an unaligned access",
    7: "a breakpoint",
    8: "an exception return",
    17: "an FPU instruction while the FPU is off",
    18: "a switch out of Thumb state",
    20: "a stack overflow",
}

# RISC-V privileged architecture 1.11, table 3.6: mcause.
ILLEGAL_INSTRUCTION = 2
_RISCV_EXCEPTIONS = {
    0: "a jump to an odd address",
    1: "an instruction access fault",
    2: "an illegal instruction",
    3: "a breakpoint",
    4: "an unaligned load",
    5: "a load access fault",
    6: "an unaligned store",
    7: "a store access fault",
    11: "an ECALL instruction, but nothing serves it",
}


def access_control_register(
    engine: Uc, code: bytes, registers: Mapping[int, ControlRegister]
) -> bool:
    """Carries out an instruction on one of `registers`; False for any other instruction.

    Args:
        code: 4 bytes of one that the emulator's core found illegal (Zicsr, RISC-V unprivileged
            architecture 20191213, chapter 9: CSRRW, CSRRS, CSRRC and their immediate forms).
    """
    (word,) = struct.unpack("<I", code)
    operation, source, destination = word >> 12 & 7, word >> 15 & 31, word >> 7 & 31
    register = registers.get(word >> 20)
    if word & 0x7F != 0x73 or not operation & 3 or register is None:
        return False
    immediate = bool(operation & 4)
    operand = source if immediate or source == 0 else engine.reg_read(_RISCV_X0 + source)
    writes = operation & 3 == 1 or source != 0
    reads = operation & 3 != 1 or destination != 0
    value = register.read() if reads else 0
    if writes:
        register.write({1: operand, 2: value | operand, 3: value & ~operand}[operation & 3])
    if destination:
        engine.reg_write(_RISCV_X0 + destination, value)
    return True


_RISCV_X0 = riscv.UC_RISCV_REG_X0


def _cortex_m(model: int) -> Processor:
    return Processor(
        instruction_set="thumb",
        architecture=const.UC_ARCH_ARM,
        mode=const.UC_MODE_THUMB,
        model=model,
        program_counter=arm.UC_ARM_REG_PC,
        reset=_reset_cortex_m,
        exceptions=_CORTEX_M_EXCEPTIONS,
        undefined=_CORTEX_M_EXCEPTIONS[1],
    )


PROCESSORS = {
    "cortex-m0": _cortex_m(arm.UC_CPU_ARM_CORTEX_M0),
    "cortex-m3": _cortex_m(arm.UC_CPU_ARM_CORTEX_M3),
    "cortex-m4": _cortex_m(arm.UC_CPU_ARM_CORTEX_M4),
    "cortex-m7": _cortex_m(arm.UC_CPU_ARM_CORTEX_M7),
    "cortex-m33": _cortex_m(arm.UC_CPU_ARM_CORTEX_M33),
    "rv32": Processor(
        instruction_set="riscv",
        architecture=const.UC_ARCH_RISCV,
        mode=const.UC_MODE_RISCV32,
        # RV32IMAC without an FPU; Unicorn's other models have one.
        model=riscv.UC_CPU_RISCV32_SIFIVE_E31,
        program_counter=riscv.UC_RISCV_REG_PC,
        reset=_reset_riscv,
        exceptions=_RISCV_EXCEPTIONS,
        undefined=_RISCV_EXCEPTIONS[2],
    ),
}
