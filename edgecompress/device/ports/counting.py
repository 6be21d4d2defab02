"""Exact instruction counts on the virtual board: a native block hook, or the same in Python.

Unicorn announces each basic block as it is entered; the instructions of a block are counted once,
from its bytes, and added on every entry. Instructions skipped by an IT block count as executed,
as they do in QEMU's icount and in the pipeline of the real core.

The count at a timer read includes the whole block the read is in, so the difference between two
reads made by the same instruction is exact to the instruction; port_ticks() is that instruction.

While a watched function runs (`watch`), each block's entries and taken exits are kept as well:
`take_blocks` hands them over, for cycle models. They end with the function's return.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import unicorn.arm_const as arm
import unicorn.riscv_const as riscv
import unicorn.unicorn_const as const
from unicorn.unicorn_py3 import Uc

from edgecompress.device.cycles import BlockCount
from edgecompress.device.ports.processors import InstructionSet

_SOURCE = Path(__file__).with_name("block_counter.c")
_BUILD_TIMEOUT_SECONDS = 120
# An odd address begins no block.
_NOWHERE = 0xFFFFFFFF
_TAKEN_BLOCKS = 4096
_LINK_REGISTERS: dict[InstructionSet, int] = {
    "thumb": arm.UC_ARM_REG_LR,
    "riscv": riscv.UC_RISCV_REG_RA,
}


class InstructionCounter(Protocol):
    kind: str

    @property
    def instructions(self) -> int:
        """Executed so far, the current block included whole."""
        ...

    def watch(self, addresses: Sequence[int]) -> None:
        """Records blocks from entering one of these functions (at most two) until it returns."""
        ...

    def take_blocks(self) -> tuple[BlockCount, ...] | None:
        """What was recorded since the last call; None when the table had no room for all."""
        ...


class PythonCounter:
    """The fallback: same numbers, about a twentieth of the speed."""

    kind = "python"

    def __init__(self, engine: Uc, instruction_set: InstructionSet = "thumb") -> None:
        self.instructions = 0
        self._instruction_set: InstructionSet = instruction_set
        self._blocks: dict[tuple[int, int], int] = {}
        self._watched: frozenset[int] = frozenset()
        self._recorded: dict[tuple[int, int], list[int]] = {}
        self._return_address: int | None = None
        self._previous = (0, 0)
        engine.hook_add(const.UC_HOOK_BLOCK, self._enter)

    def _enter(self, engine: Uc, address: int, size: int, _state: object) -> None:
        count = self._blocks.get((address, size))
        if count is None:
            count = count_instructions(bytes(engine.mem_read(address, size)), self._instruction_set)
            self._blocks[address, size] = count
        self.instructions += count
        if self._return_address is not None or address in self._watched:
            self._record(engine, address, size)

    def _record(self, engine: Uc, address: int, size: int) -> None:
        if self._return_address is None:
            self._return_address = engine.reg_read(_LINK_REGISTERS[self._instruction_set]) & ~1
        else:
            if sum(self._previous) != address:
                self._recorded[self._previous][1] += 1
            if address == self._return_address:
                self._return_address = None
                return
        self._recorded.setdefault((address, size), [0, 0])[0] += 1
        self._previous = (address, size)

    def watch(self, addresses: Sequence[int]) -> None:
        self._watched = frozenset(addresses)

    def take_blocks(self) -> tuple[BlockCount, ...] | None:
        taken, self._recorded = self._recorded, {}
        return tuple(
            BlockCount(address, size, entries, exits)
            for (address, size), (entries, exits) in sorted(taken.items())
        )


def count_instructions(code: bytes, instruction_set: InstructionSet = "thumb") -> int:
    """Instructions in a run of code.

    Armv7-M ARM A5.1 and the RISC-V unprivileged ISA 1.5 say which are 32 bits wide: by the first
    halfword's top five bits and by its lowest two.
    """
    count = position = 0
    while position < len(code):
        if instruction_set == "riscv":
            wide = code[position] & 3 == 3
        else:
            wide = code[position + 1] >> 3 >= 0x1D
        position += 4 if wide else 2
        count += 1
    return count


class _State(ctypes.Structure):
    _fields_ = (
        ("instructions", ctypes.c_uint64),
        ("read_memory", ctypes.c_void_p),
        ("read_register", ctypes.c_void_p),
        ("link_register", ctypes.c_int32),
        ("is_riscv", ctypes.c_uint32),
        ("watched", ctypes.c_uint32 * 2),
        ("recording", ctypes.c_uint32),
        ("return_address", ctypes.c_uint32),
        ("lost", ctypes.c_uint32),
    )


class _Block(ctypes.Structure):
    _fields_ = (
        ("address", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("instructions", ctypes.c_uint32),
        ("entries", ctypes.c_uint64),
        ("taken", ctypes.c_uint64),
    )


class NativeCounter:
    """The hook of block_counter.c, called by Unicorn without entering Python.

    Raises:
        OSError, subprocess.SubprocessError, AttributeError, ImportError: it cannot be built or
            hooked in here; `make_counter` then falls back.
    """

    kind = "native"

    def __init__(self, engine: Uc, instruction_set: InstructionSet = "thumb") -> None:
        # The binding cannot take a C function as a hook, so the library under it is called.
        from unicorn.unicorn_py3.unicorn import uclib

        library = ctypes.CDLL(str(_built_library()))
        library.counter_bytes.restype = ctypes.c_uint32
        self._memory = ctypes.create_string_buffer(library.counter_bytes())
        self._state = _State.from_buffer(self._memory)
        self._state.read_memory = ctypes.cast(uclib.uc_mem_read, ctypes.c_void_p).value
        self._state.read_register = ctypes.cast(uclib.uc_reg_read, ctypes.c_void_p).value
        self._state.link_register = _LINK_REGISTERS[instruction_set]
        self._state.is_riscv = instruction_set == "riscv"
        self.watch(())
        self._library = library
        hook = ctypes.c_size_t()
        status = uclib.uc_hook_add(
            engine._uch,
            ctypes.byref(hook),
            ctypes.c_int(const.UC_HOOK_BLOCK),
            ctypes.cast(library.count_block, ctypes.c_void_p),
            ctypes.cast(self._memory, ctypes.c_void_p),
            ctypes.c_uint64(1),
            ctypes.c_uint64(0),
        )
        if status != const.UC_ERR_OK:
            raise OSError(f"uc_hook_add returned {status}")

    @property
    def instructions(self) -> int:
        return self._state.instructions

    def watch(self, addresses: Sequence[int]) -> None:
        self._state.watched = (ctypes.c_uint32 * 2)(*(*addresses, _NOWHERE, _NOWHERE)[:2])

    def take_blocks(self) -> tuple[BlockCount, ...] | None:
        found = (_Block * _TAKEN_BLOCKS)()
        blocks: list[BlockCount] = []
        while True:
            count = self._library.take_blocks(self._memory, found, _TAKEN_BLOCKS)
            blocks += [BlockCount(b.address, b.size, b.entries, b.taken) for b in found[:count]]
            if count < _TAKEN_BLOCKS:
                break
        lost, self._state.lost = self._state.lost, 0
        return None if lost else tuple(sorted(blocks))


def make_counter(
    engine: Uc, kind: str = "auto", *, instruction_set: InstructionSet = "thumb"
) -> InstructionCounter:
    """`kind` is "auto" (native where it can be built), "native" or "python"."""
    if kind == "python":
        return PythonCounter(engine, instruction_set)
    try:
        return NativeCounter(engine, instruction_set)
    except (OSError, subprocess.SubprocessError, AttributeError, ImportError):
        if kind == "native":
            raise
        return PythonCounter(engine, instruction_set)


def _built_library() -> Path:
    """The compiled hook: from the user's cache, built there if this is the first time."""
    source = _SOURCE.read_bytes()
    key = hashlib.sha256(source + platform.platform().encode()).hexdigest()[:16]
    suffix = ".dll" if sys.platform == "win32" else ".so"
    for folder in (_cache_folder(), None):
        if folder is None:  # an unwritable home: build for this process only
            folder = Path(tempfile.mkdtemp(prefix="edgecompress-"))
        library = folder / f"block_counter-{key}{suffix}"
        if library.exists():
            return library
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _build(library)
        except PermissionError:
            continue
        return library
    raise OSError("no folder to build the instruction counter in")


def _build(library: Path) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        built = Path(scratch) / library.name
        command = [
            sys.executable, "-m", "ziglang", "cc", "-shared", "-fPIC", "-O2", "-ffreestanding",
            "-nostdlib", "-fno-sanitize=all", "-o", str(built), str(_SOURCE),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=_BUILD_TIMEOUT_SECONDS)
        # Renamed into place: a second process never loads half a file.
        built.replace(library)


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "edgecompress"
    except RuntimeError:
        return Path(tempfile.mkdtemp(prefix="edgecompress-"))
