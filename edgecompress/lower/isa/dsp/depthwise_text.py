"""The depthwise routine's assembler text: transpose into planes, then strips of sums."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgecompress.lower.isa.dsp.asm import load_constant
from edgecompress.lower.isa.dsp.text import Text, offset_of

if TYPE_CHECKING:
    from edgecompress.lower.isa.dsp.depthwise import Plan

_VARIABLES = (
    "multiplier", "rounding", "plane", "output", "strip", "strip_output", "end", "last_strip",
    "x", "last_x", "delta", "scratch", "plane_end", "skipped", "shift", "table", "weights",
    "table_now", "weights_now", "header", "chunk", "chunks_end", "source", "target", "outputs",
    "span",
)  # fmt: skip
_HEADER_BYTES = 16
# while summing: r0 planes, r1 outputs, r2 bias, r3 the word, weights from r4 on, then the sums
_SUMS_AND_WEIGHTS = [f"r{number}" for number in range(4, 13)] + ["lr"]


@dataclass
class DepthwiseText:
    """Writes one plan's routine: `symbol(x, constant, scratch, y)`."""

    plan: Plan
    text: Text = field(default_factory=Text)

    def __post_init__(self) -> None:
        plan = self.plan
        self.pairs, self.strip = plan.pairs, plan.strip
        self.row_words = len(self.pairs)
        self.at = offset_of(_VARIABLES, 4 * self.row_words * plan.across.taps)
        self.frame_bytes = 4 * (self.row_words * plan.across.taps + len(_VARIABLES))
        self.chunked = len(plan.chunks) > 1

    def write(self) -> Text:
        text, plan = self.text, self.plan
        self._prologue()
        group, chunk = text.new_label(), text.new_label()
        with text.running(plan.groups):
            text.emit(f"{group}:")
            if self.chunked:
                self._begin_chunks()
            with text.running(plan.groups * len(plan.chunks)):
                text.emit(f"{chunk}:")
                if self.chunked:
                    self._fill_chunk()
                else:
                    self._copy_plane()
                self._planes()
                if self.chunked:
                    self._next_chunk(chunk)
            self._next_group(group)
        text.emit(f"add sp, #{self.frame_bytes}", "pop {r4-r11, pc}")
        return text

    def load(self, register: str, name: str) -> str:
        return f"ldr {register}, [sp, #{self.at[name]}]"

    def store(self, register: str, name: str) -> str:
        return f"str {register}, [sp, #{self.at[name]}]"

    def _prologue(self) -> None:
        """Saves pointers and fills scratch with the zero point: the border stays."""
        text, plan = self.text, self.plan
        text.emit("push {r4-r11, lr}", f"sub sp, #{self.frame_bytes}", "subs r3, r3, r0",
                  self.store("r0", "x"), self.store("r3", "delta"),
                  self.store("r1", "header"))  # fmt: skip
        text.add("r4", plan.channels - 4, "r4", source="r0")
        text.emit(self.store("r4", "last_x"), self.store("r2", "scratch"),
                  "ldmia r1!, {r4, r5, r6, r7}", self.store("r5", "rounding"),
                  self.store("r6", "shift"))  # fmt: skip
        if self.chunked:
            text.add("r1", 8 * len(plan.chunks), "r5")
            text.emit(self.store("r1", "chunks_end"))
        text.emit("add r7, r1", f"strd r1, r7, [sp, #{self.at['table']}]")
        if not self.chunked:
            text.emit(f"strd r1, r7, [sp, #{self.at['table_now']}]")
        text.emit("movs r3, #0", self.store("r3", "skipped"), "mov r5, r4", "mov r6, r4",
                  "mov r7, r4")  # fmt: skip
        text.add("r12", plan.scratch_bytes, "r12", source="r2")
        label = text.new_label()
        with text.running(plan.scratch_bytes // 16):
            text.emit(f"{label}:", "stmia r2!, {r4-r7}", "cmp r2, r12", f"bne {label}b")

    # Copying: r0 source, r1 target, r12 four zero points, lr rows left.

    def _copy_plane(self) -> None:
        """All rows of the image at once."""
        plan, text = self.plan, self.text
        text.emit(self.load("r0", "x"), self.load("r1", "scratch"))
        text.add("r1", plan.across.before * plan.row_bytes, "r2")
        text.emit(*load_constant("lr", plan.across.inside))
        self._copy_rows(plan.groups * plan.across.inside)

    def _copy_rows(self, total: int) -> None:
        """Transposes lr rows; `total` of them in a call."""
        text, plan = self.text, self.plan
        along = plan.along
        words, left = divmod(along.before, 2)
        pairs, right = divmod(along.inside - left, 2)
        if left or right:
            text.emit(self.load("r12", "header"), "ldrb r12, [r12]",
                      "orr r12, r12, r12, lsl #8", "orr r12, r12, r12, lsl #16")  # fmt: skip
        text.add("r1", 16 * words, "r2")
        row = text.new_label()
        with text.running(total):
            text.emit(f"{row}:")
            moved = 0
            if left:
                text.emit("ldr r3, [r0]", *_transpose("r12", "r3"))
                moved += along.input_step
            moved = self._copy_pairs(pairs, plan.copied_at_once(pairs), moved, total)
            if right:
                text.emit(f"ldr r2, [r0, #{moved}]", *_transpose("r2", "r12"))
            text.add("r0", plan.across.input_step - self._walked, "r2")
            text.add("r1", 16 * (plan.words - left - pairs - right), "r2")
            text.emit("subs.w lr, lr, #1", f"bne {row}b")
        text.add("r1", -16 * words, "r2")

    def _copy_pairs(self, pairs: int, unroll: int, moved: int, total: int) -> int:
        """A row's whole pairs; returns where r0's next pixel is, `_walked` is what r0 moved."""
        text, step = self.text, self.plan.along.input_step
        self._walked = 0
        loops, rest = (0, pairs) if pairs <= unroll else divmod(pairs, unroll)
        if loops:
            label = text.new_label()
            text.add("r8", 16 * unroll * loops, "r8", source="r1")
            with text.running(total * loops):
                text.emit(f"{label}:")
                self._unrolled(unroll, moved)
                text.add("r0", 2 * unroll * step, "r2")
                text.emit("cmp r1, r8", f"bne {label}b")
            self._walked += 2 * unroll * loops * step
        self._unrolled(rest, moved)
        return moved + 2 * rest * step

    def _unrolled(self, pairs: int, begin: int) -> None:
        """Two pairs' loads stand together: the second and later are cheaper."""
        step = self.plan.along.input_step
        for first in range(0, pairs, 2):
            registers = [("r2", "r3"), ("r9", "r10")][: pairs - first]
            for number, pair in enumerate(registers):
                for half, register in enumerate(pair):
                    offset = begin + (2 * (first + number) + half) * step
                    self.text.emit(f"ldr {register}, [r0, #{offset}]")
            for pair in registers:
                self.text.emit(*_transpose(*pair))

    # Chunks of rows.

    def _begin_chunks(self) -> None:
        text = self.text
        text.emit(self.load("r0", "x"), self.store("r0", "source"),
                  self.load("r1", "delta"), "add r1, r0", self.store("r1", "outputs"),
                  self.load("r1", "scratch"), self.store("r1", "target"),
                  self.load("r1", "header"), f"adds r1, #{_HEADER_BYTES}",
                  self.store("r1", "chunk"))  # fmt: skip

    def _fill_chunk(self) -> None:
        """Border rows above, image rows and border rows below the next chunk needs."""
        plan, text = self.plan, self.text
        totals = [plan.groups * sum(getattr(chunk, name) for chunk in plan.chunks)
                  for name in ("above", "copied", "below")]  # fmt: skip
        text.emit(self.load("r1", "target"))
        self._fill_rows(0, totals[0])
        text.emit(self.load("r0", "chunk"), "ldrh lr, [r0, #2]", self.load("r0", "source"))
        empty = sum(chunk.copied == 0 for chunk in plan.chunks)
        skip = text.new_label()
        text.emit("cmp lr, #0", f"beq {skip}f")
        with text.running(plan.groups * (len(plan.chunks) - empty)):
            self._copy_rows(totals[1])
        text.emit(f"{skip}:", self.store("r0", "source"))
        self._fill_rows(4, totals[2])
        text.emit(self.load("r0", "chunk"), "ldrh r0, [r0, #6]")
        text.emit(*load_constant("r1", plan.across.stride * plan.row_bytes), "muls r0, r1",
                  self.store("r0", "span"))  # fmt: skip

    def _fill_rows(self, field_offset: int, total: int) -> None:
        text, plan = self.text, self.plan
        row, word, done = text.new_label(), text.new_label(), text.new_label()
        text.emit(self.load("r0", "chunk"), f"ldrh lr, [r0, #{field_offset}]",
                  "cmp lr, #0", f"beq {done}f")  # fmt: skip
        name = "above" if field_offset == 0 else "below"
        entered = sum(getattr(chunk, name) > 0 for chunk in plan.chunks)
        with text.running(plan.groups * entered):
            text.emit(self.load("r4", "header"), "ldr r4, [r4]", "mov r5, r4", "mov r6, r4",
                      "mov r7, r4")  # fmt: skip
        with text.running(total):
            text.emit(f"{row}:")
            text.add("r8", plan.row_bytes, "r8", source="r1")
            with text.running(total * plan.words):
                text.emit(f"{word}:", "stmia r1!, {r4-r7}", "cmp r1, r8", f"bne {word}b")
            text.emit("subs.w lr, lr, #1", f"bne {row}b")
        text.emit(f"{done}:")

    def _next_chunk(self, label: str) -> None:
        """Moves the rows that stay to the top; the next outputs follow the last."""
        text, plan = self.text, self.plan
        text.emit(self.load("r0", "chunk"), "ldrh r2, [r0, #6]", "adds r0, #8",
                  self.load("r1", "chunks_end"), "cmp r0, r1")  # fmt: skip
        done, word = text.new_label(), text.new_label()
        text.emit(f"beq {done}f")
        with text.running(plan.groups * (len(plan.chunks) - 1)):
            text.emit(self.store("r0", "chunk"), *load_constant("r1", plan.across.output_step),
                      self.load("r0", "outputs"), "mla r0, r1, r2, r0",
                      self.store("r0", "outputs"), self.load("r0", "scratch"),
                      self.load("r1", "span"), "add r1, r0")  # fmt: skip
            if plan.kept:
                text.add("r8", plan.kept * plan.row_bytes, "r8", source="r0")
                with text.running(plan.groups * (len(plan.chunks) - 1) * plan.kept * plan.words):
                    text.emit(f"{word}:", "ldmia r1!, {r4-r7}", "stmia r0!, {r4-r7}",
                              "cmp r0, r8", f"bne {word}b")  # fmt: skip
            text.emit(self.store("r0", "target"), f"b {label}b")
        text.emit(f"{done}:")

    def _next_group(self, label: str) -> None:
        """The last group starts so that it ends with the last channel: some planes are skipped."""
        text = self.text
        done = text.new_label()
        text.emit(self.load("r0", "x"), self.load("r1", "last_x"), "cmp r0, r1", f"beq {done}f")
        with text.running(self.plan.groups - 1):
            text.emit("adds r0, #4", "subs r3, r0, r1", "ite hi", "movhi r0, r1", "movls r3, #0",
                      self.store("r0", "x"), self.store("r3", "skipped"))  # fmt: skip
            if self.chunked:
                text.emit(f"ldrd r0, r1, [sp, #{self.at['table_now']}]",
                          f"strd r0, r1, [sp, #{self.at['table']}]")  # fmt: skip
            text.emit(f"b {label}b")
        text.emit(f"{done}:")

    # Sums.

    def _planes(self) -> None:
        """Every channel of the group, from the first plane on."""
        text, plan = self.text, self.plan
        channel = text.new_label()
        if self.chunked:
            text.emit(f"ldrd r0, r1, [sp, #{self.at['table']}]",
                      f"strd r0, r1, [sp, #{self.at['table_now']}]",
                      self.load("r1", "outputs"))  # fmt: skip
        else:
            text.emit(self.load("r1", "x"), self.load("r2", "delta"), "add r1, r2")
        text.emit(self.load("r3", "skipped"), "add r1, r3", self.load("r0", "scratch"),
                  "add.w r2, r0, #16", self.store("r2", "plane_end"),
                  "add.w r0, r0, r3, lsl #2")  # fmt: skip
        with text.running(plan.channels * len(plan.chunks)):
            text.emit(f"{channel}:", f"strd r0, r1, [sp, #{self.at['plane']}]")
            self._widen_weights()
            text.emit(f"ldrd r0, r1, [sp, #{self.at['plane']}]")
            whole, rest = divmod(plan.along.outputs, self.strip)
            if whole:
                self._strips(self.strip, whole)
            if rest:
                self._strips(rest, 1)
            text.emit(f"ldrd r0, r1, [sp, #{self.at['plane']}]", self.load("r2", "plane_end"),
                      "adds r0, #4", "adds r1, #1", "cmp r0, r2", f"bne {channel}b")  # fmt: skip

    def _widen_weights(self) -> None:
        """One channel's bytes to pairs on the stack, multiplied by 2^shift; the bias to r2."""
        text, plan = self.text, self.plan
        taps, rows = plan.along.taps, plan.across.taps
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
        channels = plan.channels * len(plan.chunks)
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
            with text.running(plan.channels * count * plan.across.outputs):
                text.emit(f"{row}:")
                walked = self._sum_strip(width)
                written = self._store_strip(width)
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
        text, plan = self.text, self.plan
        taps, stride = plan.along.taps, plan.along.stride
        self.sums = _SUMS_AND_WEIGHTS[max(2, self.row_words) :][:width]
        started: set[str] = set()
        words = (stride * (width - 1) + taps + 1) // 2
        step, walked = plan.across.stride * plan.row_bytes, 0
        for row in range(plan.across.taps):
            offset = row * plan.row_bytes - walked
            if offset + 16 * words > 4095:
                text.add("r0", offset, "r3")
                walked, offset = walked + offset, 0
            self._load_weights(row)
            for word in range(words):
                products = self._products(word, width)
                place = offset + 16 * word
                if products and not walked and place == step <= 255:
                    text.emit(f"ldr r3, [r0, #{place}]!")  # r0 moves on for nothing
                    walked, offset = step, offset - step
                elif products:
                    text.emit(f"ldr r3, [r0, #{place}]")
                for name, sum_register, weight in products:
                    before = sum_register if sum_register in started else "r2"
                    started.add(sum_register)
                    text.emit(f"{name} {sum_register}, r3, {weight}, {before}")
        return walked

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

    def _store_strip(self, width: int) -> int:
        """Requantizes and stores one row of a strip; returns how far r1 moved on the way."""
        text, plan = self.text, self.plan
        text.emit(f"ldrd r4, r5, [sp, #{self.at['multiplier']}]")
        sums = self.sums[:width]
        text.emit(*(f"smmla {name}, {name}, r4, r5" for name in sums))
        text.emit(*(f"ssat {name}, #8, {name}, asr #{plan.shift}" for name in sums))
        for name in sums:
            if plan.low > -128:
                text.emit(f"cmp {name}, #{plan.low}", "it lt", f"movlt {name}, #{plan.low}")
            if plan.high < 127:
                text.emit(f"cmp {name}, #{plan.high}", "it gt", f"movgt {name}, #{plan.high}")
        written = 0
        for output, name in enumerate(sums):
            offset = output * plan.along.output_step - written
            if offset > 4095:
                text.add("r1", offset, "r3")
                written, offset = written + offset, 0
            text.emit(f"strb.w {name}, [r1, #{offset}]")
        return written


def _transpose(first: str, second: str) -> list[str]:
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
