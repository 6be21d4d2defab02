"""From exact block counts to words moved and estimated cycles, with one named model a core.

The virtual board says how often each basic block ran and how often it was left by a taken branch;
here the blocks are disassembled and charged. Cycles are estimates: no wait states, caches warm.

Example: a loop of two instructions, entered 10 times and left backwards 9 times,

    ldr r0, [r1], #4     Cortex-M4: 2 cycles
    bne loop             3 when taken, else 1      ->  10 * 2 + 9 * 3 + 1 = 48 cycles
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    import capstone

Kind = Literal["load", "store", "multiple", "double", "branch", "divide", "multiply", "other"]


class BlockCount(NamedTuple):
    """A basic block: `entries` times run, `taken` times left to another address than its end."""

    address: int
    size: int
    entries: int
    taken: int


@dataclass(frozen=True)
class Instruction:
    """What the models look at.

    Attributes:
        words: registers moved to or from memory, at least 1: how "words" counts the instruction.
        reads, writes: register names, flags included.
        shifts: an operand goes through the barrel shifter.
        jumps: it may write the program counter.
    """

    text: str
    kind: Kind
    words: int = 1
    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()
    shifts: bool = False
    jumps: bool = False

    @property
    def is_memory(self) -> bool:
        return self.kind in ("load", "store", "multiple", "double")


class CycleModel(Protocol):
    """A core's timing: `name` goes beside every figure made with it."""

    name: str

    def cycles(self, code: Sequence[Instruction], *, taken: bool) -> tuple[int, int]:
        """(low, high) cycles of a block, left by its last instruction's branch or not."""
        ...


class CortexM4:
    """Arm Cortex-M4 TRM (DDI 0439) table 3-1 at zero wait states.

    LDR 2 (1 straight after another load or store), LDM/STM/PUSH/POP 1 + N, LDRD/STRD 3, taken
    branch and call 3, divide 7, everything else 1. A POP or LDR into the program counter pays the
    branch's two refill cycles as well.
    """

    name = "Cortex-M4 TRM table, zero wait states"

    def cycles(self, code: Sequence[Instruction], *, taken: bool) -> tuple[int, int]:
        total, after_memory = 0, False
        for instruction in code:
            if instruction.kind == "load":
                total += 1 if after_memory else 2
            elif instruction.kind == "multiple":
                total += 1 + instruction.words
            else:
                total += {"double": 3, "divide": 7}.get(instruction.kind, 1)
            after_memory = instruction.is_memory
        if taken and code and code[-1].jumps:
            total += 2
        return total, total


class CortexM7:
    """A dual-issue range; Arm publishes no table for this core.

    Low: two neighbours issue together unless both access memory, both multiply, both shift an
    operand, the second needs the first's result, or the first branches; LDM/STM move two registers
    a cycle and branches are predicted. High: one instruction a cycle, one register a cycle, a
    cycle lost when a loaded register is used at once and at every taken branch.
    """

    name = "Cortex-M7 dual-issue range, caches warm"
    _DIVIDE = (2, 12)

    def cycles(self, code: Sequence[Instruction], *, taken: bool) -> tuple[int, int]:
        return self._dual(code), self._single(code) + taken

    def _dual(self, code: Sequence[Instruction]) -> int:
        total = position = 0
        while position < len(code):
            first = code[position]
            if first.kind == "divide":
                total += self._DIVIDE[0]
            elif first.kind == "multiple":
                total += -(-first.words // 2)
            else:
                total += 1
                position += position + 1 < len(code) and _issue_together(first, code[position + 1])
            position += 1
        return total

    def _single(self, code: Sequence[Instruction]) -> int:
        total, loaded = 0, frozenset[str]()
        for instruction in code:
            total += self._DIVIDE[1] if instruction.kind == "divide" else instruction.words
            total += bool(loaded & instruction.reads)
            loaded = instruction.writes if instruction.kind == "load" else frozenset()
        return total


def _issue_together(first: Instruction, second: Instruction) -> bool:
    if first.jumps or second.kind in ("multiple", "divide"):
        return False
    if (first.is_memory and second.is_memory) or (first.shifts and second.shifts):
        return False
    if first.kind == "multiply" == second.kind:
        return False
    # A conditional branch resolves late enough to pair with the comparison it waits for.
    needs = second.reads - {"cpsr"} if second.kind == "branch" else second.reads
    return not first.writes & needs


MODELS: dict[str, CycleModel] = {"cortex-m4": CortexM4(), "cortex-m7": CortexM7()}


@dataclass(frozen=True)
class Work:
    """What ran between entering the model and its return.

    Attributes:
        instructions: exact.
        words: the same with every register of a wide load or store counted as one, exact.
        cycles: core name -> (low, high), estimates by `MODELS`.
    """

    instructions: int
    words: int
    cycles: dict[str, tuple[int, int]]


def count_work(
    blocks: Iterable[BlockCount],
    read_memory: Callable[[int, int], bytes],
    models: dict[str, CycleModel] | None = None,
) -> Work:
    """Disassembles and charges recorded blocks.

    Args:
        read_memory: (address, size) -> the code there.
        models: default all of `MODELS`.
    """
    models = MODELS if models is None else models
    instructions = words = 0
    cycles = {core: [0, 0] for core in models}
    for block in blocks:
        code = disassemble(read_memory(block.address, block.size))
        instructions += block.entries * len(code)
        words += block.entries * sum(instruction.words for instruction in code)
        for core, model in models.items():
            for times, taken in ((block.entries - block.taken, False), (block.taken, True)):
                for side, cost in enumerate(model.cycles(code, taken=taken)):
                    cycles[core][side] += times * cost
    return Work(instructions, words, {core: (low, high) for core, (low, high) in cycles.items()})


@lru_cache(maxsize=65536)
def disassemble(code: bytes) -> tuple[Instruction, ...]:
    """Thumb code as the models see it; what capstone cannot decode counts as one plain word."""
    found: list[Instruction] = []
    position = 0
    while position < len(code):
        for item in _disassembler().disasm(code[position:], 0):
            found.append(_described(item))
            position += item.size
        if position < len(code):
            # Armv7-M ARM A5.1: which first halfwords begin a 32-bit instruction.
            position += 4 if code[position + 1] >> 3 >= 0x1D else 2
            found.append(Instruction("unknown", "other"))
    return tuple(found)


@lru_cache(maxsize=1)
def _disassembler() -> capstone.Cs:
    import capstone

    engine = capstone.Cs(
        capstone.CS_ARCH_ARM,
        capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS | capstone.CS_MODE_V8,
    )
    engine.detail = True
    return engine


_MULTIPLES = ("ldm", "stm", "push", "pop", "vldm", "vstm", "vpush", "vpop")
_BRANCHES = ("b", "bl", "bx", "blx", "cbz", "cbnz", "tbb", "tbh")
_MULTIPLIES = ("mul", "mla", "mls", "sm", "um", "usad")


def _described(item: Any) -> Instruction:
    """`item` is a capstone instruction with details."""
    name = item.insn_name()
    read, written = item.regs_access()
    writes = frozenset(item.reg_name(register) for register in written)
    kind, words = _kind(name), 1
    if kind == "multiple":
        names = [item.reg_name(operand.reg) for operand in item.operands]
        based = name not in ("push", "pop", "vpush", "vpop")
        words = sum(_words(register) for register in names[based:])
        writes |= {"pc"} if name in ("pop", "ldm", "ldmdb") and "pc" in names else set()
    elif kind == "double":
        words = 2
    elif name in ("vldr", "vstr"):
        words = _words(item.reg_name(item.operands[0].reg))
        kind = "double" if words == 2 else kind
    return Instruction(
        text=f"{item.mnemonic} {item.op_str}",
        kind=kind,
        words=words,
        reads=frozenset(item.reg_name(register) for register in read),
        writes=writes,
        shifts=any(operand.shift.type != 0 for operand in item.operands)
        or name in ("lsl", "lsr", "asr", "ror", "ubfx", "sbfx", "bfi", "sxtb", "sxth", "uxtb"),
        jumps=kind == "branch" or "pc" in writes,
    )


def _kind(name: str) -> Kind:
    if name.startswith(_MULTIPLES):
        return "multiple"
    if name in ("ldrd", "strd"):
        return "double"
    if name in _BRANCHES:
        return "branch"
    if name in ("sdiv", "udiv"):
        return "divide"
    if name.startswith(("ldr", "vldr")):
        return "load"
    if name.startswith(("str", "vstr")):
        return "store"
    return "multiply" if name.startswith(_MULTIPLIES) else "other"


def _words(register: str) -> int:
    """A double-precision register is two words."""
    return 2 if register.startswith("d") else 1
