"""A bare Cortex-M for one kernel: assembled and linked by zig, run by Unicorn, counted exactly.

    board = Board([implementation, ...], core="cortex-m4")
    outcome = board.run(0, [x], (1, 8, 8, 16))
    outcome.output, outcome.instructions

Code and constants lie in memory that cannot be written, every tensor stands between guard bytes
that are checked afterwards, and the callee-saved registers must come back as they were.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import tvm
import unicorn.arm_const as arm
import unicorn.unicorn_const as const
from elftools.elf.elffile import ELFFile
from unicorn.unicorn_py3 import Uc

from edgecompress.device.ports.counting import make_counter
from edgecompress.link.toolchain import compile_c, run_zig, target_flags
from edgecompress.lower.codegen import build_object
from edgecompress.lower.isa.interface import Implementation
from edgecompress.target.registry import load_target
from edgecompress.target.schema import DeviceProfile

CORES = ("cortex-m4", "cortex-m7", "cortex-m33")
_CODE, _CONSTANTS, _RAM = 0x0000_0000, 0x1000_0000, 0x2000_0000
_STACK_TOP = 0x3001_0000
_STACK_BYTES = 0x1_0000
_PAGE = 4096
_ALIGNMENT = 16
_GUARD = bytes([0xA5, 0x5A, 0x3C, 0x81]) * 16
_CPU = {
    "cortex-m3": arm.UC_CPU_ARM_CORTEX_M3,
    "cortex-m4": arm.UC_CPU_ARM_CORTEX_M4,
    "cortex-m7": arm.UC_CPU_ARM_CORTEX_M7,
    "cortex-m33": arm.UC_CPU_ARM_CORTEX_M33,
}
_SAVED = [getattr(arm, f"UC_ARM_REG_R{number}") for number in range(4, 12)]
_ARGUMENTS = [getattr(arm, f"UC_ARM_REG_R{number}") for number in range(4)]
_START = """\
    .syntax unified
    .thumb
    .section .text.start, "ax", %progbits
    .global start
    .type start, %function
    .thumb_func
start:
    blx r12
    .global stop
    .type stop, %function
    .thumb_func
stop:
    b stop
    .global __aeabi_unwind_cpp_pr0
__aeabi_unwind_cpp_pr0:
    .global __aeabi_unwind_cpp_pr1
__aeabi_unwind_cpp_pr1:
    bx lr
"""
_SCRIPT = """\
SECTIONS
{
    .text 0 : { *(.text.start) *(.text .text.* .rodata .rodata.*) }
    /DISCARD/ : { *(.debug_*) *(.ARM.exidx* .ARM.extab* .eh_frame*) }
}
"""


@dataclass(frozen=True)
class Outcome:
    """One call: `instructions` from the function's first to its return, both included.

    `scratch` is what it left in its scratch memory, `stack_bytes` its deepest use of the stack.
    """

    output: np.ndarray
    instructions: int
    stack_bytes: int
    scratch: bytes


class Board:
    """Implementations linked together as an image does it: equal routine names share one routine.

    Args:
        implementations: those to `run`, by their index here.
        core: a built-in target with a Unicorn model.
    """

    def __init__(self, implementations: Sequence[Implementation], core: str = "cortex-m7") -> None:
        self.implementations = list(implementations)
        self.core = core
        profile = load_target(core)
        routines: dict[str, str] = {}
        drivers = {}
        for implementation in self.implementations:
            for name, text in implementation.assembly.items():
                assert routines.setdefault(name, text) == text, f"{name} has two texts"
            if implementation.driver is not None:
                symbol = implementation.symbol
                assert symbol not in drivers, f"{symbol} has two drivers"
                drivers[symbol] = implementation.driver
        kernels = b""
        if drivers:
            kernels = build_object(tvm.IRModule(drivers), dict(profile.toolchain.llvm))
        self._code, self._symbols, self._sizes = _link("\n".join(routines.values()), kernels, core)

    def code_bytes(self, symbol: str) -> int:
        """The size of one function in the linked image."""
        return self._sizes[symbol]

    def run(
        self,
        index: int,
        activations: Sequence[np.ndarray],
        output_shape: tuple[int, ...],
        *,
        dtype: str = "int8",
        overlap: int | None = None,
    ) -> Outcome:
        """Calls one implementation.

        Args:
            activations: the kernel's activation arguments.
            output_shape, dtype: of the output.
            overlap: the output starts this many bytes after the first activation, in the same
                memory; None keeps them apart.

        Raises:
            UcError: the code left the memory it was given.
            AssertionError: it wrote beside its output or scratch, or lost a saved register.
        """
        implementation = self.implementations[index]
        memory = _Memory()
        blank = np.full(output_shape, 0x33, dtype)
        if overlap is None:
            inputs = [memory.place(array) for array in activations]
            output = memory.place(blank)
        else:
            first, output = memory.place_overlapping(activations[0], overlap, blank.nbytes)
            inputs = [first, *(memory.place(array) for array in activations[1:])]
        constants = [memory.place_constant(array) for array in implementation.constants]
        scratch_bytes = implementation.scratch_bytes
        unset = np.full(scratch_bytes, 0x77, np.uint8)
        scratch = [memory.place(unset)] if scratch_bytes else []
        engine = self._engine(memory)
        engine.reg_write(arm.UC_ARM_REG_R12, self._symbols[implementation.symbol] | 1)
        instructions, stack = self._call(engine, [*inputs, *constants, *scratch, output])
        written = [(output, blank.nbytes), *((address, scratch_bytes) for address in scratch)]
        if overlap is not None:
            written.append((inputs[0], activations[0].nbytes))
        memory.check(engine, written)
        raw = bytes(engine.mem_read(output, blank.nbytes))
        left = bytes(engine.mem_read(scratch[0], scratch_bytes)) if scratch else b""
        return Outcome(np.frombuffer(raw, dtype).reshape(output_shape), instructions, stack, left)

    def _engine(self, memory: _Memory) -> Uc:
        engine = Uc(const.UC_ARCH_ARM, const.UC_MODE_THUMB)
        engine.ctl_set_cpu_model(_CPU[self.core])
        engine.mem_map(_CODE, _pages(len(self._code)), const.UC_PROT_READ | const.UC_PROT_EXEC)
        engine.mem_write(_CODE, self._code)
        for base, data, writable in (
            (_CONSTANTS, memory.constants, False),
            (_RAM, memory.ram, True),
        ):
            rights = const.UC_PROT_READ | (const.UC_PROT_WRITE if writable else 0)
            engine.mem_map(base, _pages(len(data)), rights)
            engine.mem_write(base, bytes(data))
        engine.mem_map(_STACK_TOP - _STACK_BYTES, _STACK_BYTES)
        engine.mem_write(_STACK_TOP - _STACK_BYTES, b"\xc5" * _STACK_BYTES)
        return engine

    def _call(self, engine: Uc, arguments: Sequence[int]) -> tuple[int, int]:
        counter = make_counter(engine)
        stacked = arguments[4:]
        stack = _STACK_TOP - 64 - -(-len(stacked) * 4 // 8) * 8
        for position, value in enumerate(stacked):
            engine.mem_write(stack + 4 * position, value.to_bytes(4, "little"))
        for register, value in zip(_ARGUMENTS, arguments, strict=False):
            engine.reg_write(register, value)
        for number, register in enumerate(_SAVED):
            engine.reg_write(register, 0x5A5A_0000 + number)
        engine.reg_write(arm.UC_ARM_REG_SP, stack)
        engine.emu_start(self._symbols["start"] | 1, self._symbols["stop"] & ~1)
        assert engine.reg_read(arm.UC_ARM_REG_PC) & ~1 == self._symbols["stop"] & ~1
        assert engine.reg_read(arm.UC_ARM_REG_SP) == stack, "the stack pointer moved"
        for number, register in enumerate(_SAVED):
            assert engine.reg_read(register) == 0x5A5A_0000 + number, f"r{number + 4} was lost"
        bottom = bytes(engine.mem_read(_STACK_TOP - _STACK_BYTES, _STACK_BYTES))
        free = len(bottom) - len(bottom.lstrip(b"\xc5"))
        used = stack - (_STACK_TOP - _STACK_BYTES) - free
        return counter.instructions - 1, max(used, 0)  # without the harness's own blx


class _Memory:
    """Tensors between guards, and what must be unchanged afterwards."""

    def __init__(self) -> None:
        self.constants = bytearray(_GUARD)
        self.ram = bytearray(_GUARD)

    def place(self, array: np.ndarray) -> int:
        """The address in RAM, 16-byte aligned."""
        return _RAM + _append(self.ram, np.ascontiguousarray(array).tobytes())

    def place_constant(self, array: np.ndarray) -> int:
        return _CONSTANTS + _append(self.constants, np.ascontiguousarray(array).tobytes())

    def place_overlapping(
        self, array: np.ndarray, distance: int, output_bytes: int
    ) -> tuple[int, int]:
        """Addresses of a tensor and of an output that begins `distance` bytes after it."""
        before = -(-max(-distance, 0) // _ALIGNMENT) * _ALIGNMENT
        end = max(array.nbytes, distance + output_bytes)
        room = bytearray(b"\x33" * (before + end))
        room[before : before + array.nbytes] = np.ascontiguousarray(array).tobytes()
        first = _RAM + _append(self.ram, bytes(room)) + before
        return first, first + distance

    def check(self, engine: Uc, written: Sequence[tuple[int, int]]) -> None:
        after = np.frombuffer(bytes(engine.mem_read(_RAM, len(self.ram))), np.uint8)
        different = after != np.frombuffer(bytes(self.ram), np.uint8)
        for address, size in written:
            different[address - _RAM : address - _RAM + size] = False
        assert not different.any(), f"wrote {different.sum()} bytes it must not"


def _append(memory: bytearray, data: bytes) -> int:
    position = len(memory)
    memory += data + _GUARD[: -len(data) % _ALIGNMENT] + _GUARD
    return position


def _pages(size: int) -> int:
    return max(-(-size // _PAGE), 1) * _PAGE


@cache
def _link(routines: str, kernels: bytes, core: str) -> tuple[bytes, dict[str, int], dict[str, int]]:
    """The flat code from address 0, and every function's address and size."""
    profile: DeviceProfile = load_target(core)
    with tempfile.TemporaryDirectory(prefix="edgecompress-test-") as scratch:
        folder = Path(scratch)
        (folder / "start.S").write_text(_START)
        (folder / "routines.S").write_text("    .syntax unified\n    .thumb\n" + routines)
        (folder / "link.ld").write_text(_SCRIPT)
        objects = compile_c(["start.S", "routines.S"], [], profile, folder=folder)
        if kernels:
            (folder / "kernels.o").write_bytes(kernels)
            objects.append("kernels.o")
        command = ["cc", *target_flags(profile), "-nostdlib", "-g", "-Wl,-T,link.ld"]
        command += ["-Wl,-e,start", *objects, "-lcompiler_rt", "-o", "out.elf"]
        run_zig(command, folder=folder, what="linking kernels under test")
        with (folder / "out.elf").open("rb") as file:
            elf = ELFFile(file)
            symbols = list(elf.get_section_by_name(".symtab").iter_symbols())
            code = elf.get_section_by_name(".text").data()
            addresses = {symbol.name: symbol["st_value"] for symbol in symbols}
            return code, addresses, {symbol.name: symbol["st_size"] for symbol in symbols}
