"""A model of two steps written by hand, linked with the real runtime: what the device tests run.

    step 0: hidden[i] = sat8(3 * in[i] - 7), 32 bytes at arena offset 16
    step 1: out[j] = sat8(sum of hidden[j], hidden[j + 10], hidden[j + 20]), 10 bytes at 80

The input is 32 bytes at arena offset 48.

Step 0 misbehaves on request, when the first input byte asks for it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from edgecompress.link.image import linker_script, port_defines
from edgecompress.link.toolchain import compile_c, run_zig, target_flags
from edgecompress.paths import shipped
from edgecompress.records import (
    ImageManifest,
    LayerReport,
    MemoryMap,
    SizeReport,
    TensorSpec,
    sha256_file,
)
from edgecompress.target.schema import DeviceProfile

MODEL_HASH = "5eed" * 16

# First input bytes that make step 0 misbehave.
READ_NOWHERE, WRITE_FLASH, JUMP_TO_RAM, UNDEFINED, LOOP, PAST_RAM, READ_UART_ID, USE_STACK = range(
    -128, -120
)

_HEADER = f"""
#ifndef MODEL_H
#define MODEL_H
#include <stdint.h>
#define MODEL_NAME "tiny01"
#define MODEL_HASH "{MODEL_HASH}"
typedef int8_t model_input_t;
#define MODEL_INPUT_BYTES 32
typedef int8_t model_output_t;
#define MODEL_OUTPUT_BYTES 10
#define MODEL_OUTPUT_SCALE 0.00390625f
#define MODEL_OUTPUT_ZERO_POINT (-128)
#define MODEL_ARENA_BYTES 96
extern uint8_t model_arena[MODEL_ARENA_BYTES];
#define MODEL_INPUT_PRESERVED 1
static inline model_input_t *model_input(void) {{ return (int8_t *)model_arena + 48; }}
static inline model_output_t *model_output(void) {{ return (int8_t *)model_arena + 80; }}
int model_run(const model_input_t *in, model_output_t *out);
#define MODEL_STEP_COUNT 2
void model_run_step(int step);
#endif
"""

_SOURCE = """
#include "model.h"
__attribute__((section(".bss.model_arena"), aligned(16))) uint8_t model_arena[MODEL_ARENA_BYTES];

#if defined(__riscv)
#define UNDEFINED "unimp"
#define THUMB 0
#else
#define UNDEFINED "udf #0"
#define THUMB 1
#endif

static int8_t saturate(int value) { return value > 127 ? 127 : value < -128 ? -128 : value; }

__attribute__((noinline)) static void misbehave(int how) {
#if defined(__arm__) || defined(__riscv)
  if (how == -128) (void)*(volatile uint32_t *)0x30000000u;
  if (how == -127) *(volatile uint32_t *)0x00000100u = 1;
  if (how == -126) ((void (*)(void))((uintptr_t)model_arena | THUMB))();
  if (how == -125) __asm__ volatile(UNDEFINED);
  if (how == -124) for (;;) __asm__ volatile("");
  if (how == -123) (void)*(volatile uint8_t *)RAM_END;
  if (how == -122) (void)*(volatile uint32_t *)(PORT_UART_BASE + 0xFE0);
  if (how == -121) {
    uint8_t deep[2000];
    deep[0] = 1;
    __asm__ volatile("" ::"r"(deep) : "memory");
  }
#else
  if (how == -128) *(volatile int *)0 = 1;
  if (how == -124) for (;;) __asm__ volatile("");
#endif
}

void model_run_step(int step) {
  int8_t *in = model_input(), *out = model_output();
  int8_t *hidden = (int8_t *)model_arena + 16;
  if (step == 0) {
    if (in[0] < -120) misbehave(in[0]);
    for (int i = 0; i < 32; i++) hidden[i] = saturate(3 * in[i] - 7 SLIP);
  } else {
    for (int j = 0; j < 10; j++)
      out[j] = saturate(hidden[j] + hidden[j + 10] + hidden[j + 20]);
  }
}

int model_run(const model_input_t *in, model_output_t *out) {
  (void)in;
  (void)out;
  for (int step = 0; step < MODEL_STEP_COUNT; step++) model_run_step(step);
  return 0;
}
"""


def hidden_reference(x: np.ndarray) -> np.ndarray:
    return np.clip(3 * x.astype(np.int32) - 7, -128, 127).astype(np.int8)


def output_reference(x: np.ndarray) -> np.ndarray:
    hidden = hidden_reference(x).astype(np.int32).reshape(-1)
    total = hidden[:10] + hidden[10:20] + hidden[20:30]
    return np.clip(total, -128, 127).astype(np.int8).reshape(1, 10)


def build_tiny_image(profile: DeviceProfile, folder: Path, *, slip: str = "") -> ImageManifest:
    """`slip` is added to step 0's arithmetic ("+ (i == 5)"): a wrong build, on purpose."""
    runtimes = shipped("runtimes")
    parts = ["core", f"ports/{profile.console.port}"]
    if profile.kind == "mcu":
        parts.append("startup")
    for part in parts:
        shutil.copytree(runtimes / part, folder / part)
    (folder / "model.h").write_text(_HEADER)
    (folder / "model.c").write_text(_SOURCE)
    sources = [str(c.relative_to(folder)) for part in parts for c in (folder / part).glob("*.c")]
    objects = compile_c(
        [*sorted(sources), "model.c"], _flags(profile, slip), profile, folder=folder
    )
    return _link(profile, folder, objects)


def rebuild_port(profile: DeviceProfile, folder: Path) -> ImageManifest:
    """Compiles the port's file of a folder `build_tiny_image` made once more, and links again."""
    port = f"ports/{profile.console.port}/port.c"
    compile_c([port], _flags(profile, ""), profile, folder=folder)
    return _link(profile, folder, sorted(str(o.relative_to(folder)) for o in folder.rglob("*.o")))


def _flags(profile: DeviceProfile, slip: str) -> list[str]:
    port = f"-Iports/{profile.console.port}"
    flags = ["-Icore", port, "-I.", f"-DSLIP={slip}", *port_defines(profile)]
    if profile.kind == "mcu":
        ram = profile.region("ram")
        flags.append(f"-DRAM_END={ram.origin + ram.size}u")
    return flags


def _link(profile: DeviceProfile, folder: Path, objects: list[str]) -> ImageManifest:
    link = ["cc", *target_flags(profile), "-Os"]
    if profile.kind == "mcu":
        (folder / "memory.ld").write_text(linker_script(profile, alignment=16))
        link += ["-g", "-nostdlib", "-lcompiler_rt", "-Wl,-T,memory.ld", "-Wl,-e,Reset_Handler"]
        link.append("-Wl,--gc-sections")
        firmware = "firmware.elf"
    else:
        link.append("-static")
        firmware = "firmware"
    run_zig([*link, *objects, "-o", firmware], folder=folder, what="linking the tiny image")
    manifest = manifest_of(profile, firmware, sha256_file(folder / firmware))
    (folder / "image.json").write_text(manifest.to_json())
    return manifest


def manifest_of(profile: DeviceProfile, firmware: str, firmware_hash: str) -> ImageManifest:
    """What image.json says of the tiny image, or of anything that stands for it."""
    common = {"kernel": "by_hand", "output_dtype": "int8", "macs": 0, "is_float": False}
    layers = (
        LayerReport(
            index=0, name="hidden", location="arena", offset_bytes=16, size_bytes=32,
            output_shape=(1, 32), **common,
        ),
        LayerReport(
            index=1, name="out", location="arena", offset_bytes=80, size_bytes=10,
            output_shape=(1, 10), **common,
        ),
    )  # fmt: skip
    return ImageManifest(
        model_name="tiny01",
        target=profile.name,
        model_hash=MODEL_HASH,
        firmware_hash=firmware_hash,
        firmware=firmware,
        inputs=(TensorSpec(name="x", shape=(1, 32), dtype="int8", scale=1.0),),
        outputs=(
            TensorSpec(name="y", shape=(1, 10), dtype="int8", scale=1 / 256, zero_point=-128),
        ),
        layers=layers,
        memory=MemoryMap(arena_bytes=96, tensors=(), peak_step="hidden", peak_live_bytes=64),
        size=SizeReport(flash_sections={}, ram_parts={}),
        requantize="smmla",
    )
