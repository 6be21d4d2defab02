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
