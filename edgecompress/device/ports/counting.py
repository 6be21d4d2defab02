"""Exact instruction counts on the virtual board: a native block hook, or the same in Python.

Unicorn announces each basic block as it is entered; the instructions of a block are counted once,
from its bytes, and added on every entry. Instructions skipped by an IT block count as executed,
as they do in QEMU's icount and in the pipeline of the real core.

The count at a timer read includes the whole block the read is in, so the difference between two
reads made by the same instruction is exact to the instruction; port_ticks() is that instruction.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Protocol

import unicorn.unicorn_const as const
from unicorn.unicorn_py3 import Uc

_SOURCE = Path(__file__).with_name("block_counter.c")
_BUILD_TIMEOUT_SECONDS = 120


class InstructionCounter(Protocol):
    kind: str

    @property
    def instructions(self) -> int:
        """Executed so far, the current block included whole."""
        ...


class PythonCounter:
    """The fallback: same numbers, about a twentieth of the speed."""

    kind = "python"

    def __init__(self, engine: Uc) -> None:
        self.instructions = 0
        self._blocks: dict[tuple[int, int], int] = {}
        engine.hook_add(const.UC_HOOK_BLOCK, self._enter)

    def _enter(self, engine: Uc, address: int, size: int, _state: object) -> None:
        count = self._blocks.get((address, size))
        if count is None:
            count = count_thumb_instructions(bytes(engine.mem_read(address, size)))
            self._blocks[address, size] = count
        self.instructions += count


def count_thumb_instructions(code: bytes) -> int:
    """Instructions in a run of Thumb code (Armv7-M ARM A5.1 for which are 32 bits wide)."""
    count = position = 0
    while position < len(code):
        position += 4 if code[position + 1] >> 3 >= 0x1D else 2
        count += 1
    return count


class _State(ctypes.Structure):
    _fields_ = (("instructions", ctypes.c_uint64), ("read_memory", ctypes.c_void_p))


class NativeCounter:
    """The hook of block_counter.c, called by Unicorn without entering Python.

    Raises:
        OSError, subprocess.SubprocessError, AttributeError, ImportError: it cannot be built or
            hooked in here; `make_counter` then falls back.
    """

    kind = "native"

    def __init__(self, engine: Uc) -> None:
        # The binding cannot take a C function as a hook, so the library under it is called.
        from unicorn.unicorn_py3.unicorn import uclib

        library = ctypes.CDLL(str(_built_library()))
        library.counter_bytes.restype = ctypes.c_uint32
        self._memory = ctypes.create_string_buffer(library.counter_bytes())
        self._state = _State.from_buffer(self._memory)
        self._state.read_memory = ctypes.cast(uclib.uc_mem_read, ctypes.c_void_p).value
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


def make_counter(engine: Uc, kind: str = "auto") -> InstructionCounter:
    """`kind` is "auto" (native where it can be built), "native" or "python"."""
    if kind == "python":
        return PythonCounter(engine)
    try:
        return NativeCounter(engine)
    except (OSError, subprocess.SubprocessError, AttributeError, ImportError):
        if kind == "native":
            raise
        return PythonCounter(engine)


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
