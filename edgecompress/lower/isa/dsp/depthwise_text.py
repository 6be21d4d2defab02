"""The depthwise routine's assembler text: four channels become planes, then strips of sums."""

from __future__ import annotations

from edgecompress.lower.isa.dsp.asm import load_constant
from edgecompress.lower.isa.dsp.depthwise_sums import DepthwiseSums
from edgecompress.lower.isa.dsp.text import Text, transpose


class DepthwiseText(DepthwiseSums):
    """Writes one plan's routine: `symbol(x, constant, scratch, y)`."""

    header_bytes = 16

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

    def _prologue(self) -> None:
        """Saves pointers and fills scratch with the zero point: the border stays."""
        text, plan = self.text, self.plan
        text.emit("push {r4-r11, lr}", f"sub sp, #{self.frame_bytes}", self.store("r0", "x"),
                  self.store("r3", "y"), self.store("r1", "header"))  # fmt: skip
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
                text.emit("ldr r3, [r0]", *transpose("r12", "r3"))
                moved += along.input_step
            moved = self._copy_pairs(pairs, plan.copied_at_once(pairs), moved, total)
            if right:
                text.emit(f"ldr r2, [r0, #{moved}]", *transpose("r2", "r12"))
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
                self.text.emit(*transpose(*pair))

    # Chunks of rows.

    def _begin_chunks(self) -> None:
        text = self.text
        text.emit(self.load("r0", "x"), self.store("r0", "source"),
                  self.load("r1", "y"), self.store("r1", "outputs"),
                  self.load("r1", "scratch"), self.store("r1", "target"),
                  self.load("r1", "header"), f"adds r1, #{self.header_bytes}",
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
        text.emit(*self._row_step(), "muls r0, r1", self.store("r0", "span"))

    def _fill_rows(self, field_offset: int, total: int) -> None:
        text, plan = self.text, self.plan
        row, word, done = text.new_label(), text.new_label(), text.new_label()
        text.emit(self.load("r0", "chunk"), f"ldrh lr, [r0, #{field_offset}]",
                  "cmp lr, #0", f"beq {done}f")  # fmt: skip
        name = "above" if field_offset == 0 else "below"
        entered = sum(getattr(chunk, name) > 0 for chunk in plan.chunks)
        with text.running(plan.groups * entered):
            text.emit(*self._zeros())
        with text.running(total):
            text.emit(f"{row}:")
            self._row_end()
            with text.running(total * plan.words):
                text.emit(f"{word}:", "stmia r1!, {r4-r7}", "cmp r1, r8", f"bne {word}b")
            text.emit("subs.w lr, lr, #1", f"bne {row}b")
        text.emit(f"{done}:")

    # Sizes, which `depthwise_shared.py` reads from the stack.

    def _zeros(self) -> list[str]:
        return [self.load("r4", "header"), "ldr r4, [r4]", "mov r5, r4", "mov r6, r4", "mov r7, r4"]

    def _row_end(self) -> None:
        self.text.add("r8", self.plan.row_bytes, "r8", source="r1")

    def _kept_end(self) -> None:
        self.text.add("r8", self.plan.kept * self.plan.row_bytes, "r8", source="r0")

    def _row_step(self) -> list[str]:
        return load_constant("r1", self.plan.across.stride * self.plan.row_bytes)

    def _output_step(self) -> list[str]:
        return load_constant("r1", self.plan.across.output_step)

    def _next_chunk(self, label: str) -> None:
        """Moves the rows that stay to the top; the next outputs follow the last."""
        text, plan = self.text, self.plan
        text.emit(self.load("r0", "chunk"), "ldrh r2, [r0, #6]", "adds r0, #8",
                  self.load("r1", "chunks_end"), "cmp r0, r1")  # fmt: skip
        done, word = text.new_label(), text.new_label()
        text.emit(f"beq {done}f")
        with text.running(plan.groups * (len(plan.chunks) - 1)):
            text.emit(self.store("r0", "chunk"), *self._output_step(),
                      self.load("r0", "outputs"), "mla r0, r1, r2, r0",
                      self.store("r0", "outputs"), self.load("r0", "scratch"),
                      self.load("r1", "span"), "add r1, r0")  # fmt: skip
            if plan.kept > 0:
                self._kept_end()
                with text.running(plan.groups * (len(plan.chunks) - 1) * plan.kept * plan.words):
                    text.emit(f"{word}:", "ldmia r1!, {r4-r7}", "stmia r0!, {r4-r7}",
                              "cmp r0, r8", f"bne {word}b")  # fmt: skip
            text.emit(self.store("r0", "target"), f"b {label}b")
        text.emit(f"{done}:")

    def _next_group(self, label: str) -> None:
        """The last group starts so that it ends with the last channel: some planes are skipped."""
        text, plan = self.text, self.plan
        done = text.new_label()
        text.emit(self.load("r0", "x"), self.load("r1", "last_x"), "cmp r0, r1", f"beq {done}f")
        with text.running(plan.groups - 1):
            text.emit(f"adds r0, #{plan.step}", "subs r3, r0, r1", "ite hi", "movhi r0, r1",
                      "movls r3, #0", self.store("r0", "x"), self.store("r3", "skipped"),
                      self.load("r2", "y"))  # fmt: skip
            text.add("r2", plan.step // plan.planes * plan.filters, "r1")
            text.emit(self.store("r2", "y"))
            if self.chunked:
                text.emit(f"ldrd r0, r1, [sp, #{self.at['table_now']}]",
                          f"strd r0, r1, [sp, #{self.at['table']}]")  # fmt: skip
            text.emit(f"b {label}b")
        text.emit(f"{done}:")

    def _planes(self) -> None:
        """Every filter of the group, from the first plane it reads on."""
        text, plan = self.text, self.plan
        filters = plan.output_channels * len(plan.chunks)
        first = text.new_label()
        if self.chunked:
            text.emit(f"ldrd r0, r1, [sp, #{self.at['table']}]",
                      f"strd r0, r1, [sp, #{self.at['table_now']}]",
                      self.load("r1", "outputs"))  # fmt: skip
        else:
            text.emit(self.load("r1", "y"))
        text.emit(self.load("r3", "skipped"), self.load("r0", "scratch"))
        end = ["add.w r2, r0, #16", self.store("r2", "plane_end")]
        skip = ["add.w r0, r0, r3, lsl #2"]
        if plan.step == 3:  # the fourth plane is the next group's
            end[0] = "add.w r2, r0, #12"
            text.emit(*skip, *end)
        else:
            text.emit(*end, *skip)
        several = [*load_constant("r2", plan.filters), self.store("r2", "left")]
        if plan.filters > 1:
            text.emit(*several)
        with text.running(filters):
            text.emit(f"{first}:", f"strd r0, r1, [sp, #{self.at['plane']}]")
            self._widen_weights()
            text.emit(f"ldrd r0, r1, [sp, #{self.at['plane']}]")
            self._all_strips()
            text.emit(f"ldrd r0, r1, [sp, #{self.at['plane']}]", "adds r1, #1")
            if plan.filters > 1:
                text.emit(self.load("r2", "left"), "subs r2, #1", self.store("r2", "left"),
                          f"bne {first}b")  # fmt: skip
        with text.running(filters // plan.filters):
            if plan.filters > 1:
                text.emit(*several)
            text.emit(self.load("r2", "plane_end"), f"adds r0, #{4 * plan.planes}", "cmp r0, r2",
                      f"bne {first}b")  # fmt: skip
