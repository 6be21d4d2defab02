"""A routine's lines with how often each runs: its text and its exact cost come from one list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from edgecompress.lower.isa.dsp.asm import cycles, instruction_count, load_constant, routine
from edgecompress.lower.isa.interface import Cost


class Text:
    """Lines in order; those emitted under `running(n)` run n times in one call.

    Example:
        text.emit("movs r0, #3")
        with text.running(3):
            text.emit("1:", "subs r0, #1", "bne 1b")

    is three instructions of text and seven executed.
    """

    def __init__(self) -> None:
        self._blocks: list[tuple[int, list[str]]] = [(1, [])]
        self._labels = 0

    @property
    def times(self) -> int:
        """How often what is emitted now runs."""
        return self._blocks[-1][0]

    def emit(self, *lines: str) -> None:
        self._blocks[-1][1].extend(lines)

    def new_label(self) -> str:
        """A numeric local label used once in the routine: `7:`, branched to by `7b` or `7f`."""
        self._labels += 1
        return str(self._labels)

    @contextmanager
    def running(self, times: int) -> Iterator[None]:
        """What is emitted inside runs `times` times; the caller writes label and branch."""
        before = self.times
        self._blocks.append((times, []))
        yield
        self._blocks.append((before, []))

    def add(self, register: str, value: int, spare: str, source: str = "") -> None:
        """`register = source + value`, `source` being the register itself by default."""
        source = source or register
        if value == 0:
            if source != register:
                self.emit(f"mov {register}, {source}")
        elif abs(value) < 4096:
            name, size = ("add", value) if value > 0 else ("sub", -value)
            narrow = size < 256 and register == source and register in _LOW
            self.emit(f"{name}{'s' if narrow else 'w'} {register}, {source}, #{size}")
        else:
            self.emit(*load_constant(spare, value), f"add {register}, {source}, {spare}")

    def assembly(self, symbol: str) -> str:
        return routine(symbol, [line for _, lines in self._blocks for line in lines])

    def cost(self) -> Cost:
        """Of one call; the text counts as shared, so `code_bytes` is 0."""
        return Cost(
            instructions=sum(times * instruction_count(lines) for times, lines in self._blocks),
            cycles=sum(times * cycles(lines) for times, lines in self._blocks),
            code_bytes=0,
        )


_LOW = tuple(f"r{number}" for number in range(8))


def offset_of(names: Sequence[str], first: int = 0) -> dict[str, int]:
    """Byte offsets of one-word stack variables, from `first` on."""
    return {name: first + 4 * index for index, name in enumerate(names)}


def transpose(first: str, second: str) -> list[str]:
    """Two pixels of four channels become one pair of each channel."""
    return [
        f"pkhbt r4, {first}, {second}, lsl #16",
        f"pkhtb r6, {second}, {first}, asr #16",
        "sxtb16 r5, r4, ror #8",
        "sxtb16 r7, r6, ror #8",
        "sxtb16 r4, r4",
        "sxtb16 r6, r6",
        "stmia r1!, {r4-r7}",
    ]
