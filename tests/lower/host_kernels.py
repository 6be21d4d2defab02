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

from edgecompress.lower.codegen import build_object
from edgecompress.lower.kernels.primfunc import build_function
from edgecompress.verify.host import aligned

HOST_TARGET = {"kind": "llvm", "mtriple": f"{platform.machine()}-linux-gnu"}


class HostKernels:
    """Any number of kernels in one shared library.

    Args:
        kernels: (kernel, example arguments) pairs; the arguments give shapes and dtypes.
    """

    def __init__(self, kernels: list[tuple[Any, list[np.ndarray]]]) -> None:
        functions, self._outputs = {}, []
        for index, (kernel, arrays) in enumerate(kernels):
            name = f"kernel_{index}"
            arguments = [(array.shape, str(array.dtype)) for array in arrays]
            functions[name] = build_function(kernel, arguments, name)
            output = functions[name].params[-1].ty
            self._outputs.append((tuple(map(int, output.shape)), str(output.dtype)))
        self._folder = tempfile.TemporaryDirectory(prefix="edgecompress-test-")
        folder = Path(self._folder.name)
        (folder / "kernels.o").write_bytes(build_object(tvm.IRModule(functions), HOST_TARGET))
        command = [sys.executable, "-m", "ziglang", "cc", "-shared", "-nostdlib", "kernels.o"]
        subprocess.run([*command, "-o", "kernels.so"], cwd=folder, check=True)
        self._library = ctypes.CDLL(str(folder / "kernels.so"))

    def run(self, index: int, *arrays: np.ndarray) -> np.ndarray:
        shape, dtype = self._outputs[index]
        output = aligned(np.zeros(shape, dtype))
        given = [aligned(array) for array in arrays]
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in (*given, output)]
        getattr(self._library, f"kernel_{index}")(*pointers)
        return output

    def run_overlapping(
        self, index: int, argument: int, distance_bytes: int, *arrays: np.ndarray
    ) -> np.ndarray:
        """As `run`, the output `distance_bytes` after argument `argument` in the same memory.

        This machine's vectors want aligned tensors: `distance_bytes` is a multiple of 64.
        """
        shape, dtype = self._outputs[index]
        size_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        before = max(0, -distance_bytes)
        extent = max(before + arrays[argument].nbytes, before + distance_bytes + size_bytes)
        memory = aligned(np.zeros(extent, np.uint8))
        memory[before : before + arrays[argument].nbytes] = arrays[argument].reshape(-1).view("u1")
        given = [aligned(array) for array in arrays]
        addresses = [array.ctypes.data for array in given]
        addresses[argument] = memory.ctypes.data + before
        output = before + distance_bytes
        pointers = [ctypes.c_void_p(at) for at in (*addresses, memory.ctypes.data + output)]
        getattr(self._library, f"kernel_{index}")(*pointers)
        return memory[output : output + size_bytes].view(dtype).reshape(shape)
