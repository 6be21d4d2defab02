"""Builds kernels for this machine and calls them through ctypes: what the kernel tests share."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import s_tir, te

from edgecompress.lower.codegen import build_object

HOST_TARGET = {"kind": "llvm", "mtriple": f"{platform.machine()}-linux-gnu"}


def primitive_function(kernel: Any, arrays: list[np.ndarray], name: str) -> Any:
    """The kernel's unscheduled PrimFunc for arguments shaped and typed like `arrays`."""
    tensors = [
        te.placeholder(array.shape, str(array.dtype), f"a{index}")
        for index, array in enumerate(arrays)
    ]
    function = te.create_prim_func([*tensors, kernel.compute(*tensors)])
    return function.with_attr("global_symbol", name)


class HostKernels:
    """Any number of kernels in one shared library.

    Args:
        kernels: (kernel, example arguments) pairs; the arguments give shapes and dtypes.
    """

    def __init__(self, kernels: list[tuple[Any, list[np.ndarray]]]) -> None:
        functions = {
            f"kernel_{index}": primitive_function(kernel, arrays, f"kernel_{index}")
            for index, (kernel, arrays) in enumerate(kernels)
        }
        schedule = s_tir.Schedule(tvm.IRModule(functions))
        self._outputs = []
        for index, (kernel, _) in enumerate(kernels):
            name = f"kernel_{index}"
            schedule.work_on(name)
            kernel.schedule(schedule, name)
            output = list(functions[name].params)[-1].ty
            shape = tuple(int(extent) for extent in output.shape)
            self._outputs.append((shape, str(output.dtype)))
        self._folder = tempfile.TemporaryDirectory(prefix="edgecompress-test-")
        folder = Path(self._folder.name)
        (folder / "kernels.o").write_bytes(build_object(schedule.mod, HOST_TARGET))
        command = [sys.executable, "-m", "ziglang", "cc", "-shared", "-nostdlib", "kernels.o"]
        subprocess.run([*command, "-o", "kernels.so"], cwd=folder, check=True)
        self._library = ctypes.CDLL(str(folder / "kernels.so"))

    def run(self, index: int, *arrays: np.ndarray) -> np.ndarray:
        shape, dtype = self._outputs[index]
        output = np.zeros(shape, dtype)
        contiguous = [np.ascontiguousarray(array) for array in arrays]
        pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (*contiguous, output)]
        getattr(self._library, f"kernel_{index}")(*pointers)
        return output
