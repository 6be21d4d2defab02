"""Many MVE kernels in one bare firmware on QEMU's Cortex-M55 (mps3-an547), counted by -icount.

    results = run([Call(implementation, [x], (1, 8, 8, 16)), ...])
    results[0].output, results[0].instructions

Every tensor stands between guard words that are checked afterwards, and the callee-saved registers
must come back as they were. QEMU is the only emulator of this core.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from mve_cases import Case
from mve_guard import GUARD_CODE, NO_GUARD_CODE

from edgecompress.link.toolchain import compile_c, run_zig, target_flags
from edgecompress.lower.isa.interface import Generator, Implementation
from edgecompress.target.registry import load_target

CORE = "cortex-m55"
EMULATOR = "qemu-system-arm"
needs_qemu = pytest.mark.skipif(
    shutil.which(EMULATOR) is None,
    reason=f"{EMULATOR} is not installed; it is the only emulator of MVE",
)
_INSTRUCTIONS_PER_TICK = 50  # of the FPGAIO counter, at 20 MHz and one instruction a nanosecond
_RUN_SECONDS = 60
_GUARD_BYTES = 32


@dataclass(frozen=True)
class Call:
    """One kernel call.

    `over` is (argument, distance): the output starts that many bytes (none, or fewer than none)
    after that activation.
    """

    implementation: Implementation
    activations: Sequence[np.ndarray]
    output_shape: tuple[int, ...]
    over: tuple[int, int] | None = None


@dataclass(frozen=True)
class Result:
    """`instructions` is exact to one timer tick (50 instructions), call overhead included."""

    output: np.ndarray
    instructions: int


_MAIN = """\
#include <stdint.h>
#define UART ((volatile uint32_t *)0x49303000u)
#define COUNTER (*(volatile uint32_t *)0x49302018u)
#define GUARD 0xA55A3C81u
static void put(char c) { while (UART[1] & 1) { } UART[0] = (uint8_t)c; }
static void hex(uint32_t v, int digits)
{
    while (digits--) put("0123456789abcdef"[v >> 4 * digits & 15]);
}
static void text(const char *s) { while (*s) put(*s++); }
static void finish(void)
{
    register uint32_t operation __asm__("r0") = 0x18, reason __asm__("r1") = 0x20026;
    __asm__ volatile("bkpt 0xab" ::"r"(operation), "r"(reason) : "memory");
    for (;;) { }
}
void *memset(void *d, int c, unsigned n)
{
    uint8_t *p = d; while (n--) *p++ = (uint8_t)c; return d;
}
void *memcpy(void *d, const void *s, unsigned n)
{
    uint8_t *p = d; const uint8_t *q = s; while (n--) *p++ = *q++; return d;
}
int called(void (*f)(void), const uint32_t *arguments);
typedef struct { uint32_t size, used; const uint8_t *source; } tensor_t;
typedef struct {
    void (*f)(void);
    uint32_t count;
    int32_t over, distance;
    tensor_t tensors[6];
} call_t;
static uint32_t memory[24576] __attribute__((aligned(32)));
static const uint8_t *const bytes = (const uint8_t *)memory;
@GUARD@
@DATA@
int main(void)
{
    UART[4] = 16;
    UART[2] = 3;
    for (unsigned i = 0; i < sizeof calls / sizeof *calls; i++) {
        const call_t *call = &calls[i];
        const unsigned last = call->count - 1;
        uint32_t arguments[6] = {0}, at = 8;
        static uint8_t touched[sizeof memory];
        for (unsigned w = 0; w < sizeof memory / 4; w++) memory[w] = GUARD;
        for (unsigned k = 0; k <= last; k++) {
            const tensor_t *t = &call->tensors[k];
            if (t->used && !GUARDED) { arguments[k] = (uint32_t)t->source; continue; }
            if (k == last && call->over >= 0) {
                arguments[k] = arguments[call->over] + (uint32_t)call->distance;
                continue;
            }
            uint32_t size = t->size;
            if ((int)k == call->over) {
                uint32_t before = ((uint32_t)-call->distance + 15) / 16 * 16;
                at += before / 4;
                if (call->tensors[last].size > size) size = call->tensors[last].size;
            }
            /* guarded, tensors of 16, 48, ... bytes end with a block of 32 */
            if (GUARDED && (size + 15) / 16 % 2) at += 4;
            arguments[k] = (uint32_t)&memory[at];
            if (t->source) memcpy(&memory[at], t->source, t->size);
            at += (size + 15) / 16 * 4 + 8;
        }
        guard(call->tensors, arguments, last);
        uint32_t start = COUNTER;
        int saved = called(call->f, arguments);
        uint32_t ticks = COUNTER - start;
        unguard();
        unsigned bad = !saved;
        for (unsigned b = 0; b < at * 4; b++) touched[b] = 0;
        for (unsigned k = 0; k <= last; k++) {
            const tensor_t *t = &call->tensors[k];
            if (t->used && !GUARDED) continue;
            uint32_t begin = arguments[k] - (uint32_t)memory;
            for (unsigned b = 0; b < t->size; b++) touched[begin + b] = 1;
            if (!t->source || (int)k == call->over) continue;
            for (unsigned b = 0; b < t->size; b++) bad |= bytes[begin + b] != t->source[b];
        }
        for (unsigned b = 0; b < at * 4; b++)
            bad |= !touched[b] && bytes[b] != (uint8_t)(GUARD >> 8 * (b & 3));
        hex(i, 4); put(' '); hex(ticks, 8); put(' '); put(bad ? 'x' : '.'); put(' ');
        const uint8_t *out = (const uint8_t *)arguments[call->count - 1];
        for (unsigned b = 0; b < call->tensors[call->count - 1].size; b++) hex(out[b], 2);
        text("\\n");
    }
    text("end\\n");
    finish();
}
"""

# reset: coprocessors 10 and 11 on (Armv8-M ARM D1.2.13), then main
_START = """\
    .syntax unified
    .thumb
    .section .vectors, "a", %progbits
    .word 0x20040000
    .word reset
    .word 0
    .word hard_fault
    .section .text.reset, "ax", %progbits
    .global reset
    .type reset, %function
    .thumb_func
reset:
    movw r0, #0xed88
    movt r0, #0xe000
    ldr r1, [r0]
    orr r1, #0xf00000
    str r1, [r0]
    dsb
    isb
    bl main
"""
_SCRIPT = """\
SECTIONS
{
    .text 0 : { KEEP(*(.vectors)) *(.text .text.* .rodata .rodata.*) }
    .bss 0x20000000 (NOLOAD) : { *(.bss .bss.*) }
    /DISCARD/ : { *(.debug_*) *(.ARM.exidx* .ARM.extab* .eh_frame*) }
}
"""

# called(f, arguments): f with its first six arguments; 1 when r4-r11 and d8-d15 were kept
_CALLED = """\
    .syntax unified
    .thumb
    .section .text.called, "ax", %progbits
    .global called
    .type called, %function
    .thumb_func
called:
    push {r4-r11, lr}
    vpush {d8-d15}
    sub sp, #12
    mov r12, r0
    ldrd r2, r3, [r1, #16]
    strd r2, r3, [sp]
    ldrd r2, r3, [r1, #8]
    ldrd r0, r1, [r1]
    mov.w r4, #0x11111111
    mov.w r5, #0x22222222
    mov.w r6, #0x33333333
    mov.w r7, #0x44444444
    mov.w r8, #0x55555555
    mov.w r9, #0x66666666
    mov.w r10, #0x77777777
    mov.w r11, #0x99999999
    vdup.32 q4, r4
    vdup.32 q5, r5
    vdup.32 q6, r6
    vdup.32 q7, r7
    blx r12
    movs r0, #0
    mvn r1, #0
    vdup.32 q0, r4
    veor q4, q4, q0
    vdup.32 q0, r5
    veor q5, q5, q0
    vdup.32 q0, r6
    veor q6, q6, q0
    vdup.32 q0, r7
    veor q7, q7, q0
    vorr q4, q4, q5
    vorr q6, q6, q7
    vorr q4, q4, q6
    vmov r2, r3, d8
    orr r1, r2, r3
    vmov r2, r3, d9
    orr r1, r2
    orr r1, r3
    eor r4, #0x11111111
    orr r1, r4
    eor r5, #0x22222222
    orr r1, r5
    eor r6, #0x33333333
    orr r1, r6
    eor r7, #0x44444444
    orr r1, r7
    eor r8, #0x55555555
    orr r1, r8
    eor r9, #0x66666666
    orr r1, r9
    eor r10, #0x77777777
    orr r1, r10
    eor r11, #0x99999999
    orr r1, r11
    cbnz r1, 1f
    movs r0, #1
1:
    add sp, #12
    vpop {d8-d15}
    pop {r4-r11, pc}
"""


def run(calls: Sequence[Call], *, guarded: bool = False) -> list[Result]:
    """Builds one firmware of all calls and runs it.

    Args:
        guarded: no byte beside the tensors can be read, see `mve_guard.py`; all of them apart.

    Raises:
        AssertionError: a call wrote (or read) where it must not, lost a register, or never came
            back.
    """
    with tempfile.TemporaryDirectory(prefix="edgecompress-test-") as scratch:
        folder = Path(scratch)
        _build(calls, folder, guarded)
        output = _emulate(folder / "firmware.elf")
    results = []
    for line, call in zip(output.splitlines(), calls, strict=False):
        index, ticks, verdict, data = re.fullmatch(r"(\w+) (\w+) ([.x]) (\w*)", line).groups()
        assert verdict == ".", f"call {int(index, 16)} trespassed or lost a register"
        array = np.frombuffer(bytes.fromhex(data), np.int8).reshape(call.output_shape)
        results.append(Result(array, int(ticks, 16) * _INSTRUCTIONS_PER_TICK))
    assert len(results) == len(calls), f"stopped after {len(results)} of {len(calls)} calls"
    return results


def check(
    generators: Sequence[Generator], cases: Sequence[Case], *, guarded: bool = False
) -> list[Result]:
    """Runs each case by the first generator that takes it and compares it with its numpy twin.

    Each case runs once with its output apart and, unless `guarded`, once for every overlap the
    implementation permits.
    """
    calls, expected = [], []
    for kernel, activations, constants in cases:
        offers = (generator.implement(kernel, tuple(constants)) for generator in generators)
        implementation = next(offer[0] for offer in offers if offer)
        result = kernel.reference(*activations, *constants)
        overlaps = [] if guarded else _overlaps(implementation, result.nbytes)
        for over in (None, *overlaps):
            calls.append(Call(implementation, activations, result.shape, over))
            expected.append(result)
    results = run(calls, guarded=guarded)
    for call, result, reference in zip(calls, results, expected, strict=True):
        message = f"{call.implementation.description}, over {call.over}"
        np.testing.assert_array_equal(result.output, reference, err_msg=message)
    return results


def _overlaps(implementation: Implementation, output_bytes: int) -> list[tuple[int, int]]:
    found = [(argument, 0) for argument in implementation.in_place_arguments]
    if implementation.may_overlap_input is not None:
        # an output further before its input than its own size does not overlap it
        found.append((0, max(implementation.may_overlap_input, -output_bytes)))
    return found


def _build(calls: Sequence[Call], folder: Path, guarded: bool) -> None:
    profile = load_target(CORE)
    routines: dict[str, str] = {}
    data = _Data()
    for call in calls:
        implementation = call.implementation
        for name, body in implementation.assembly.items():
            assert routines.setdefault(name, body) == body, f"{name} has two texts"
        data.add(call)
    main = _MAIN.replace("@DATA@", data.text({call.implementation.symbol for call in calls}))
    guard = f"#define GUARDED {int(guarded)}\n" + (GUARD_CODE if guarded else NO_GUARD_CODE)
    (folder / "main.c").write_text(main.replace("@GUARD@", guard))
    text = _START + _CALLED + "\n".join(routines.values()) + data.assembly()
    (folder / "routines.S").write_text(text)
    (folder / "data.bin").write_bytes(data.content)
    (folder / "memory.ld").write_text(_SCRIPT)
    objects = compile_c(["main.c", "routines.S"], [], profile, folder=folder)
    command = ["cc", *target_flags(profile), "-nostdlib", "-Wl,-T,memory.ld", "-Wl,--gc-sections"]
    command += ["-Wl,-e,reset", *objects, "-lcompiler_rt", "-o", "firmware.elf"]
    run_zig(command, folder=folder, what="linking MVE kernels under test")


class _Data:
    """The tensors' bytes in flash and the table of calls."""

    def __init__(self) -> None:
        self.content = b""
        self.rows: list[str] = []

    def add(self, call: Call) -> None:
        implementation = call.implementation
        tensors = [self._tensor(array, used=0) for array in call.activations]
        tensors += [self._tensor(array, used=1) for array in implementation.constants]
        if implementation.scratch_bytes:
            tensors.append(f"{{{implementation.scratch_bytes}, 0, 0}}")
        tensors.append(f"{{{int(np.prod(call.output_shape))}, 0, 0}}")
        argument, distance = call.over or (-1, 0)
        self.rows.append(
            f"{{(void (*)(void)){implementation.symbol}, {len(tensors)}, "
            f"{argument}, {distance}, {{{', '.join(tensors)}}}}},"
        )

    def _tensor(self, array: np.ndarray, *, used: int) -> str:
        raw = np.ascontiguousarray(array).tobytes()
        place = len(self.content)
        self.content += raw + bytes(-len(raw) % 16)
        return f"{{{len(raw)}, {used}, data + {place}}}"

    def text(self, symbols: set[str]) -> str:
        lines = [f"extern void {symbol}(void);" for symbol in sorted(symbols)]
        lines.append("extern const uint8_t data[];")
        return "\n".join([*lines, "static const call_t calls[] = {", *self.rows, "};"])

    def assembly(self) -> str:
        return (
            '\n    .section .rodata.data, "a", %progbits\n    .balign 16\n    .global data\n'
            'data:\n    .incbin "data.bin"\n    .space 16\n'
        )


def _emulate(firmware: Path) -> str:
    command = [
        EMULATOR, "-M", "mps3-an547", "-kernel", str(firmware), "-display", "none",
        "-monitor", "none", "-serial", "stdio", "-icount", "shift=0,sleep=off",
        "-semihosting-config", "enable=on,target=native",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_RUN_SECONDS, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        so_far = (error.stdout or b"").decode(errors="replace")
        raise AssertionError(f"never ended, after {len(so_far.splitlines())} calls") from None
    calls = len(done.stdout.splitlines()) - 1
    assert not done.stdout.endswith("fault\n"), f"call {calls} left its memory"
    assert done.stdout.endswith("end\n"), done.stdout[-200:] + done.stderr[-400:]
    return done.stdout.removesuffix("end\n")
