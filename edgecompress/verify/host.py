"""The model on the machine at hand: the device's own PrimFuncs and C, compiled for the host.

It differs from the device build in the LLVM target and nothing else, so what it computes is what
the device computes, a thousand times faster. Accuracy on a whole test set is measured here.
"""

from __future__ import annotations

import ctypes
import platform
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgecompress.errors import BadData, BuildFailed
from edgecompress.link.image import build_library
from edgecompress.link.toolchain import compile_c, run_zig, target_flags
from edgecompress.lower.memory.arena import place
from edgecompress.lower.memory.views import view_array
from edgecompress.lower.program import Program
from edgecompress.records import TensorSpec
from edgecompress.target.schema import DeviceProfile

# TVM takes a buffer's base to be aligned to the widest vector; 64 bytes covers AVX-512.
_HOST_ALIGNMENT = 64

_BATCH_SOURCE = """\
#include <string.h>
#include "lib/model.h"

#define ALIGNED __attribute__((aligned(64)))

/* `count` inferences on packed samples; kernels want aligned tensors, packed ones need not be. */
void model_run_batch(const unsigned char *in, unsigned char *out, long count)
{
    static ALIGNED unsigned char one_in[MODEL_INPUT_BYTES];
    static ALIGNED unsigned char one_out[MODEL_OUTPUT_BYTES];
    for (long index = 0; index < count; index++) {
        memcpy(one_in, in + index * MODEL_INPUT_BYTES, MODEL_INPUT_BYTES);
        model_run((const model_input_t *)(const void *)one_in, (model_output_t *)(void *)one_out);
        memcpy(out + index * MODEL_OUTPUT_BYTES, one_out, MODEL_OUTPUT_BYTES);
    }
}
"""


class HostModel:
    """A program as a shared library in this process.

    Not for two threads at once: activations live in one static arena, as on the device.

    Args:
        program: any lowered program; offsets are placed anew for the host's alignment.

    Raises:
        BuildFailed: no compiler for this machine, or TVM or zig refused.
    """

    def __init__(self, program: Program) -> None:
        self.program = place(replace(program, arena_alignment=_HOST_ALIGNMENT))
        self._library = _load(self.program)
        self._library.model_run_batch.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long]
        self._library.model_run_batch.restype = None
        self._constants = [aligned(array) for array in self.program.constants]

    def run(self, x: np.ndarray) -> np.ndarray:
        """One inference.

        Args:
            x: the input as the device sees it: `program.inputs[0]`'s shape (NHWC) and dtype.

        Returns:
            The output in `program.outputs[0]`'s shape and dtype.

        Raises:
            BadData: another shape or dtype.
        """
        spec = self.program.outputs[0]
        return self.run_batch(np.asarray(x).reshape(1, *np.shape(x)))[0].reshape(spec.shape)

    def run_batch(self, x: np.ndarray) -> np.ndarray:
        """Many inferences with one call into C.

        Args:
            x: [N, *shape] of `program.inputs[0]`; a batch dimension of 1 inside `shape` may be
                left out, so [N, H, W, C] does for an input of [1, H, W, C].

        Returns:
            [N, *shape] of `program.outputs[0]`, its own batch dimension of 1 left out.

        Raises:
            BadData: another shape or dtype.
        """
        given, wanted = self.program.inputs[0], self.program.outputs[0]
        samples = _packed(x, given)
        shape = wanted.shape[1:] if wanted.shape[:1] == (1,) else wanted.shape
        results = np.empty((len(samples), *shape), wanted.dtype)
        self._library.model_run_batch(samples.ctypes.data, results.ctypes.data, len(samples))
        return results

    def layers(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Every step's output by step name: each buffer in memory of its own, nothing overwritten.

        Raises:
            BadData: another shape or dtype than `program.inputs[0]`.
        """
        sample = _packed(np.asarray(x).reshape(1, *np.shape(x)), self.program.inputs[0])
        values: dict[str, np.ndarray] = {}
        buffers = self.program.buffers.values()
        for buffer in buffers:
            if not buffer.view_of:
                values[buffer.name] = aligned(np.zeros(buffer.shape, buffer.dtype))
        for buffer in buffers:
            if buffer.view_of:
                values[buffer.name] = view_array(values[buffer.view_of], buffer)
        for name in self.program.input_buffers:
            np.copyto(values[name], sample.reshape(values[name].shape))
        for step in self.program.steps:
            pointers = [
                ctypes.c_void_p(
                    self._constants[int(argument.name)].ctypes.data
                    if argument.kind == "constant"
                    else values[argument.name].ctypes.data
                )
                for argument in step.arguments
            ]
            getattr(self._library, step.function)(*pointers)
        return {step.name: values[step.output] for step in self.program.steps}


def aligned(array: np.ndarray) -> np.ndarray:
    """A contiguous copy whose first element lies on a 64-byte boundary."""
    memory = np.empty(array.nbytes + _HOST_ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _HOST_ALIGNMENT
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    np.copyto(copy, array)
    return copy


def host_profile() -> DeviceProfile:
    """This machine as a compile target.

    Raises:
        BuildFailed: neither x86-64 nor 64-bit Arm Linux.
    """
    machine = platform.machine().lower()
    if platform.system() != "Linux" or machine not in ("x86_64", "amd64", "aarch64", "arm64"):
        raise BuildFailed(
            f"No host build for {platform.system()} on {machine}.",
            next_step="Run on x86-64 or aarch64 Linux.",
        )
    arm = machine in ("aarch64", "arm64")
    modern = not arm and {"avx2", "bmi2", "fma"} <= _cpu_flags()
    llvm_cpu = "generic" if arm else "x86-64-v3" if modern else "x86-64"
    triple = "aarch64-linux-gnu" if arm else "x86_64-linux-gnu"
    return DeviceProfile.model_validate(
        {
            "name": "this machine",
            "description": "where edgecompress runs",
            "kind": "host",
            "source": "platform and /proc/cpuinfo",
            "date": "",
            "core": {
                "name": llvm_cpu,
                "isa": "armv8-a" if arm else "x86-64",
                "clock_hz": 1,  # unused here
                "fpu": "double",
            },
            "toolchain": {
                "llvm": {"kind": "llvm", "mtriple": triple, "mcpu": llvm_cpu},
                "zig_target": triple,
                "zig_cpu": llvm_cpu.replace("-", "_"),
            },
            "console": {"port": "posix"},
        }
    )


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return set()
    line = next((row for row in text.splitlines() if row.startswith("flags")), "")
    return set(line.partition(":")[2].split())


def _load(program: Program) -> ctypes.CDLL:
    """Builds the shared library in a scratch folder, which may go once it is loaded."""
    profile = host_profile()
    with tempfile.TemporaryDirectory(prefix="edgecompress-host-") as scratch:
        folder = Path(scratch)
        build_library(program, profile, folder, model_hash="", flags=["-fPIC"])
        (folder / "batch.c").write_text(_BATCH_SOURCE, encoding="ascii")
        objects = compile_c(["batch.c"], ["-fPIC", "-O2"], profile, folder=folder)
        objects += [f"lib/{name}.o" for name in ("kernels", "model", "weights")]
        command = ["cc", *target_flags(profile), "-shared", *objects]
        # This process has the C library already, and zig would build one for half a minute.
        bare = [*command, "-nostdlib", "-Wl,--gc-sections", "-o", "bare.so"]
        run_zig(bare, folder=folder, what="linking the host build")
        try:
            return ctypes.CDLL(str(folder / "bare.so"))
        except OSError:  # a float kernel asks for more than this process has loaded
            whole = [*command, "-lm", "-o", "whole.so"]
            run_zig(whole, folder=folder, what="linking the host build")
        try:
            return ctypes.CDLL(str(folder / "whole.so"))
        except OSError as error:
            raise BuildFailed(f"The host build does not load: {error}.") from None


def _packed(x: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """[N, ...] samples, contiguous and in the input's dtype."""
    x = np.asarray(x)
    inner = spec.shape[1:] if spec.shape[:1] == (1,) else spec.shape
    if x.dtype != np.dtype(spec.dtype) or x.shape[1:] not in (spec.shape, inner):
        raise BadData(
            f"The host build takes {spec.dtype} samples of shape {list(spec.shape)} (input "
            f"'{spec.name}'), not {x.dtype} of {list(x.shape[1:])}."
        )
    return np.ascontiguousarray(x)
