"""Writing Thumb-2 routines: sections, constants in registers, and what the instructions cost."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

SECTION = ".text.model_kernels"


def routine(symbol: str, lines: Iterable[str], *, alignment: int = 4) -> str:
    """Assembler text of one global function in a section of its own.

    Args:
        lines: instructions and labels; local labels are numeric (`1:`, `1b`), so that routines
            can stand in one file. The file begins with `.syntax unified` and `.thumb`.
        alignment: of the entry, in bytes; loop heads are aligned by the lines themselves.
    """
    body = "\n".join(line if line.endswith(":") else f"    {line}" for line in lines)
    return (
        f'    .section {SECTION}.{symbol}, "ax", %progbits\n'
        f"    .balign {alignment}\n"
        f"    .global {symbol}\n"
        f"    .type {symbol}, %function\n"
        f"    .thumb_func\n"
        f"{symbol}:\n"
        f"{body}\n"
        f"    .size {symbol}, . - {symbol}\n"
    )


def written_once(text: Callable[[Any], str]) -> property:
    """A property of a frozen object, made once for all objects that are equal: every layer asks
    for the text of every routine it might use."""
    return property(lru_cache(maxsize=1 << 12)(text))


def load_constant(register: str, value: int) -> list[str]:
    """The shortest way to put a constant, taken modulo 2^32, into a register."""
    value &= 0xFFFFFFFF
    if _is_modified_immediate(value):
        return [f"mov.w {register}, #{value:#x}" if value > 255 else f"movs {register}, #{value}"]
    if _is_modified_immediate(value ^ 0xFFFFFFFF):
        return [f"mvn {register}, #{value ^ 0xFFFFFFFF:#x}"]
    lines = [f"movw {register}, #{value & 0xFFFF:#x}"]
    if value >> 16:
        lines.append(f"movt {register}, #{value >> 16:#x}")
    return lines


def _is_modified_immediate(value: int) -> bool:
    """Armv7-M ARM A5.3.2: a byte, a byte repeated, or eight bits shifted left."""
    if value < 256:
        return True
    low, second = value & 0xFF, value >> 8 & 0xFF
    if value in (low * 0x00010001, second * 0x01000100, low * 0x01010101):
        return True
    shift = value.bit_length() - 8
    return value >> shift << shift == value


_REGISTER_LIST = re.compile(r"\{([^}]*)\}")


def instruction_count(lines: Iterable[str]) -> int:
    """Instructions among lines of text: labels and directives do not count."""
    return _instruction_count(tuple(lines))


@lru_cache(maxsize=1 << 14)
def _instruction_count(lines: tuple[str, ...]) -> int:
    return sum(1 for line in lines if _mnemonic(line))


def cycles(lines: Iterable[str]) -> int:
    """Cortex-M4 TRM (DDI 0439) table 3-1 at zero wait states, every branch taken.

    LDR and STR 2, but 1 straight after another load or store; LDM, STM, PUSH and POP 1 + N; LDRD
    and STRD 3; taken branches and calls 3; divides 7; everything else 1.
    """
    return _cycles(tuple(lines))


@lru_cache(maxsize=1 << 14)
def _cycles(lines: tuple[str, ...]) -> int:
    total, after_memory = 0, False
    for line in lines:
        name = _mnemonic(line)
        if not name:
            continue
        memory = False
        if name.startswith(("ldm", "stm", "push", "pop", "vldm", "vstm", "vpush", "vpop")):
            total += 1 + _listed(line)
            memory = True
        elif name.startswith(("ldrd", "strd")):
            total, memory = total + 3, True
        elif name.startswith(("ldr", "str")):
            total, memory = total + (1 if after_memory else 2), True
        elif name in _BRANCHES:
            total += 3
        elif name in ("sdiv", "udiv"):
            total += 7
        else:
            total += 1
        after_memory = memory
    return total


_CONDITIONS = [
    "eq",
    "ne",
    "cs",
    "cc",
    "hs",
    "lo",
    "mi",
    "pl",
    "vs",
    "vc",
    "hi",
    "ls",
    "ge",
    "lt",
    "gt",
    "le",
]
_BRANCHES = {"b", "bl", "bx", "blx", "cbz", "cbnz", "tbb", "tbh", *(f"b{c}" for c in _CONDITIONS)}


@lru_cache(maxsize=1 << 16)
def _mnemonic(line: str) -> str:
    text = line.split("@")[0].strip()
    if not text or text.startswith(".") or text.endswith(":"):
        return ""
    return text.split()[0].lower().removesuffix(".w").removesuffix(".n")


def _listed(line: str) -> int:
    """Registers in a list such as {r0-r3, r5, lr}."""
    found = _REGISTER_LIST.search(line)
    count = 0
    for item in found.group(1).split(",") if found else ():
        first, _, last = item.strip().partition("-")
        count += int(last[1:]) - int(first[1:]) + 1 if last else 1
    return count
