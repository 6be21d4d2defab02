"""The sums of the depthwise routine: a channel's weights, then strips of outputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgecompress.lower.isa.dsp.text import Text, offset_of

if TYPE_CHECKING:
    from edgecompress.lower.isa.dsp.depthwise import Plan

VARIABLES = (
    "multiplier", "rounding", "plane", "output", "strip", "strip_output", "end", "last_strip",
    "x", "last_x", "y", "scratch", "plane_end", "skipped", "shift", "table", "weights",
    "table_now", "weights_now", "header", "chunk", "chunks_end", "source", "target", "outputs",
    "span", "left",
)  # fmt: skip
# while summing: r0 planes, r1 outputs, r2 bias, r3 the word, weights from r4 on, then the sums
_SUMS_AND_WEIGHTS = [f"r{number}" for number in range(4, 13)] + ["lr"]


@dataclass
class DepthwiseSums:
    """What sums up one channel's planes; `DepthwiseText` writes the rest."""

    plan: Plan
    text: Text = field(default_factory=Text)

    def __post_init__(self) -> None:
        plan = self.plan
        self.pairs, self.strip = plan.pairs, plan.strip
        self.row_words = len(self.pairs)
        self.kernel_rows = plan.across.taps * plan.planes
        self.at = offset_of(VARIABLES, 4 * self.row_words * self.kernel_rows)
        self.frame_bytes = 4 * (self.row_words * self.kernel_rows + len(VARIABLES))
        self.chunked = len(plan.chunks) > 1

    def load(self, register: str, name: str) -> str:
        return f"ldr {register}, [sp, #{self.at[name]}]"

    def store(self, register: str, name: str) -> str:
        return f"str {register}, [sp, #{self.at[name]}]"

    def _all_strips(self) -> None:
        whole, rest = divmod(self.plan.along.outputs, self.strip)
        if whole:
            self._strips(self.strip, whole)
        if rest:
            self._strips(rest, 1)

    def _widen_weights(self) -> None:
        """One filter's bytes to pairs on the stack, multiplied by 2^shift; the bias to r2."""
        text, plan = self.text, self.plan
        taps, rows = plan.along.taps, self.kernel_rows
        text.emit(f"ldrd r0, r1, [sp, #{self.at['table_now']}]", self.load("r12", "shift"),
                  "ldmia r0!, {r2, r3}", self.store("r3", "multiplier"))  # fmt: skip
        names = [f"r{3 + tap}" for tap in range(taps)]
        for row in range(rows):
            text.emit(*(f"ldrsb {name}, [r1, #{row * taps + tap}]"
                        for tap, name in enumerate(names)))  # fmt: skip
            text.emit(*(f"lsl {name}, {name}, r12" for name in names))
            for first in range(0, self.row_words, 2):
                pairs = self.pairs[first : first + 2]
                for target, (low, high) in zip(("r10", "r11"), pairs, strict=False):
                    text.emit(f"pkhbt {target}, {names[low]}, {names[high]}, lsl #16")
                place = 4 * (row * self.row_words + first)
                text.emit(f"strd r10, r11, [sp, #{place}]" if len(pairs) == 2
                          else f"str r10, [sp, #{place}]")  # fmt: skip
        text.add("r1", rows * taps, "r3")
        text.emit(f"strd r0, r1, [sp, #{self.at['table_now']}]")

    def _strips(self, width: int, count: int) -> None:
        """`count` strips of `width` outputs, down all rows in scratch; r0 and r1 stand ready."""
        text, plan = self.text, self.plan
        strip, row = text.new_label(), text.new_label()
        channels = plan.output_channels * len(plan.chunks)
        step = 8 * width * plan.along.stride
        if count > 1:
            text.add("r3", step * count, "r3", source="r0")
            text.emit(self.store("r3", "last_strip"))
        with text.running(channels * count):
            text.emit(f"{strip}:", f"strd r0, r1, [sp, #{self.at['strip']}]")
            if self.chunked:
                text.emit(self.load("r3", "span"), "add r3, r0")
            else:
                span = plan.across.outputs * plan.across.stride * plan.row_bytes
                text.add("r3", span, "r3", source="r0")
            text.emit(self.store("r3", "end"))
            with text.running(plan.output_channels * count * plan.across.outputs):
                text.emit(f"{row}:")
                walked = self._sum_strip(width)
                written = self._store_strip()
                text.add("r0", plan.across.stride * plan.row_bytes - walked, "r3")
                text.add("r1", plan.across.output_step - written, "r3")
                text.emit(self.load("r3", "end"), "cmp r0, r3", f"bne.w {row}b")
            text.emit(f"ldrd r0, r1, [sp, #{self.at['strip']}]")
            text.add("r0", step, "r3")
            text.add("r1", width * plan.along.output_step, "r3")
            if count > 1:
                text.emit(self.load("r3", "last_strip"), "cmp r0, r3", f"bne.w {strip}b")

    def _sum_strip(self, width: int) -> int:
        """The sums of one row of a strip; returns how far r0 moved on the way."""
        plan = self.plan
        self._begin_sums(width)
        step, walked = plan.across.stride * plan.row_bytes, 0
        for row in range(plan.across.taps):
            offset = row * plan.row_bytes - walked
            if offset + plan.row_bytes + 4 * plan.planes > 4095:
                self.text.add("r0", offset, "r3")
                walked, offset = walked + offset, 0
            moves = not walked and offset == step <= 255
            for plane in range(plan.planes):
                place = row * plan.planes + plane
                self._sum_row(place, width, offset + 4 * plane, moves=moves and plane == 0)
                if moves and plane == 0:
                    walked, offset = walked + step, 0
        return walked

    def _begin_sums(self, width: int) -> None:
        self.sums = _SUMS_AND_WEIGHTS[max(2, self.row_words) :][:width]
        self._started: set[str] = set()

    def _sum_row(self, row: int, width: int, offset: int, *, moves: bool = False) -> None:
        """One kernel row of a plane, from r0 + offset on; with `moves` r0 ends there, free."""
        plan, text = self.plan, self.text
        self._load_weights(row)
        for word in range((plan.along.stride * (width - 1) + plan.along.taps + 1) // 2):
            products = self._products(word, width)
            if word == 0 and moves:
                text.emit(f"ldr r3, [r0, #{offset}]!")
                offset = 0
            elif products:
                text.emit(f"ldr r3, [r0, #{offset + 16 * word}]")
            for name, total, weight in products:
                before = total if total in self._started else "r2"
                self._started.add(total)
                text.emit(f"{name} {total}, r3, {weight}, {before}")

    def _load_weights(self, row: int) -> None:
        place, count = 4 * row * self.row_words, self.row_words
        for first in range(0, count - 1, 2):
            low, high = _SUMS_AND_WEIGHTS[first : first + 2]
            self.text.emit(f"ldrd {low}, {high}, [sp, #{place + 4 * first}]")
        if count % 2:
            last = _SUMS_AND_WEIGHTS[count - 1]
            self.text.emit(f"ldr {last}, [sp, #{place + 4 * (count - 1)}]")

    def _products(self, word: int, width: int) -> list[tuple[str, str, str]]:
        """(instruction, sum, weight register) of every output that one word of inputs touches."""
        taps, stride = self.plan.along.taps, self.plan.along.stride
        found = []
        for output in range(width):
            low = 2 * word - stride * output
            inside = [0 <= low < taps, 0 <= low + 1 < taps]
            if all(inside):
                weight = _SUMS_AND_WEIGHTS[self.pairs.index((low, low + 1))]
                found.append(("smlad", self.sums[output], weight))
            elif any(inside):
                tap = low if inside[0] else low + 1
                index = next(i for i, pair in enumerate(self.pairs) if tap in pair)
                half = "b" if self.pairs[index][0] == tap else "t"
                name = f"smla{'b' if inside[0] else 't'}{half}"
                found.append((name, self.sums[output], _SUMS_AND_WEIGHTS[index]))
        return found

    def _store_strip(self) -> int:
        """Stores one row of a strip; returns how far r1 moved on the way."""
        text, plan, written = self.text, self.plan, 0
        for output, name in enumerate(self._requantize()):
            offset = output * plan.along.output_step - written
            if offset > 4095:
                text.add("r1", offset, "r3")
                written, offset = written + offset, 0
            text.emit(f"strb.w {name}, [r1, #{offset}]")
        return written

    def _requantize(self) -> list[str]:
        """The sums become bytes; returns their registers."""
        text, plan, sums = self.text, self.plan, self.sums
        text.emit(f"ldrd r4, r5, [sp, #{self.at['multiplier']}]")
        text.emit(*(f"smmla {name}, {name}, r4, r5" for name in sums))
        text.emit(*(f"ssat {name}, #8, {name}, asr #{plan.shift}" for name in sums))
        for name in sums:
            if plan.low > -128:
                text.emit(f"cmp {name}, #{plan.low}", "it lt", f"movlt {name}, #{plan.low}")
            if plan.high < 127:
                text.emit(f"cmp {name}, #{plan.high}", "it gt", f"movgt {name}, #{plan.high}")
        return sums
