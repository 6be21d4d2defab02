"""A GPU package by TVM's own Relax pipeline, compiled on a machine that may have no GPU.

TVM lowers to CUDA C and host code; the CUDA C is compiled to the GPU's machine code by NVRTC when
the library is first loaded, so neither nvcc nor a driver is needed here. Where nvcc is installed
the kernels are compiled with it as well: that proves them and gives a cubin beside the source.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import onnx
import tvm
from tvm import relax

from edgecompress.errors import BuildFailed, UnwritableOutput
from edgecompress.link.toolchain import run_zig, target_flags
from edgecompress.lower.importers import import_onnx
from edgecompress.records import SCHEMA_VERSION
from edgecompress.target.schema import DeviceProfile

_NOTE = "compiled, not run"
_NVCC_TIMEOUT_SECONDS = 600


def build_cuda_package(model: onnx.ModelProto, profile: DeviceProfile, folder: Path) -> Path:
    """Compiles a model for the profile's GPU into `folder`/package.

    The package holds `model.so` (TVM virtual machine executable for the profile's host, with
    kernels and parameters inside; load it with a CUDA build of TVM's runtime), `kernels.cu`,
    `kernels.cubin` where nvcc is installed, and `package.json`, whose `note` says that nothing
    ran.

    Args:
        model: static-shape ONNX, float or QDQ.
        profile: kind "cuda", with the [cuda] table an explicit arch.

    Returns:
        The package's folder.

    Raises:
        BuildFailed: TVM, zig or nvcc refused.
        UnsupportedOperators: TVM's importer does not know them.
        UnwritableOutput: `folder` cannot be written.
    """
    if profile.cuda is None:
        raise BuildFailed(
            f"{profile.name} has no [cuda] table, so it is not a GPU target.",
            next_step="Use cuda-sm_90 or cuda-sm_87.",
        )
    with tempfile.TemporaryDirectory(prefix="edgecompress-cuda-") as scratch:
        work = Path(scratch)
        executable, source = _compile(model, profile)
        (work / "kernels.cu").write_text(source, encoding="utf-8")
        _link_library(executable, profile, work)
        nvcc = _compile_cubin(profile, work)
        manifest = _manifest(model, profile, source, nvcc)
        (work / "package.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        names = ["model.so", "kernels.cu", "package.json"]
        return _move_into_place(work, folder, [*names, "kernels.cubin"] if nvcc else names)


def _compile(model: onnx.ModelProto, profile: DeviceProfile) -> tuple[Any, str]:
    """(VM executable, CUDA C of all kernels) by TVM's default pipeline for the target."""
    module = import_onnx(model).module
    try:
        host = {key: value for key, value in profile.toolchain.llvm.items()}
        target = tvm.target.Target(dict(profile.cuda or {}), host=host)
        with target:
            pipeline = relax.get_default_pipeline(target)
            executable = relax.build(module, target, relax_pipeline=pipeline)
    except (tvm.error.InternalError, ValueError, RuntimeError, TypeError) as error:
        reason = (str(error).strip().splitlines() or ["no message"])[-1]
        raise BuildFailed(
            f"TVM could not compile the model for {profile.name}: {reason}",
            next_step="--debug shows TVM's own trace.",
        ) from error
    kernels = [part for part in _imports(executable.mod) if part.kind == "cuda"]
    if not kernels:
        raise BuildFailed(f"TVM made no CUDA kernel for {profile.name}; the model has no operator.")
    return executable, "\n".join(part.inspect_source("cuda") for part in kernels)


def _imports(module: Any) -> list[Any]:
    """A runtime module and everything it imports, depth first."""
    return [module, *(inner for part in module.imports for inner in _imports(part))]


def _link_library(executable: Any, profile: DeviceProfile, work: Path) -> None:
    """TVM's objects to `model.so` with zig, so that another host's library links here too."""
    executable.export_library(str(work / "objects.tar"))
    with tarfile.open(work / "objects.tar") as archive:
        names = sorted(Path(name).name for name in archive.getnames())
        archive.extractall(work / "objects", filter="data")
    run_zig(
        [
            "cc",
            *target_flags(profile),
            "-shared",
            "-nostdlib",  # the process that loads it has both libc and TVM's runtime
            "-Wl,--build-id=none",
            *(f"objects/{name}" for name in names),
            "-o",
            "model.so",
        ],
        folder=work,
        what=f"linking model.so for {profile.name}",
    )


def _compile_cubin(profile: DeviceProfile, work: Path) -> str:
    """kernels.cubin where nvcc is on PATH; returns its release, "" where there is none."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        return ""
    arch = str((profile.cuda or {})["arch"])
    command = [nvcc, "-w", f"-arch={arch}", "-cubin", "kernels.cu", "-o", "kernels.cubin"]
    try:
        done = subprocess.run(
            command,
            cwd=work,
            capture_output=True,
            text=True,
            timeout=_NVCC_TIMEOUT_SECONDS,
            check=False,
        )
        version = subprocess.run(
            [nvcc, "--version"], capture_output=True, text=True, timeout=60, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildFailed(f"nvcc ({nvcc}) did not finish: {error}.") from None
    if done.returncode != 0:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        first = next((line for line in lines if "error" in line), (lines or ["no message"])[0])
        raise BuildFailed(
            f"nvcc refused the kernels for {arch}: {first}",
            next_step=f"Install a CUDA toolkit that knows {arch}, or take nvcc off PATH: "
            "the package is complete without it.",
        )
    release = re.search(r"release ([\d.]+)", version)
    return release[1] if release else "unknown"


def _manifest(
    model: onnx.ModelProto, profile: DeviceProfile, source: str, nvcc: str
) -> dict[str, Any]:
    kernels = re.findall(
        r'^extern "C" __global__ void .*?(\w+)\([^)]*\)\s*\{', source, re.MULTILINE
    )

    def tensors(values: Any) -> list[dict[str, Any]]:
        return [
            {
                "name": value.name,
                "shape": [item.dim_value for item in value.type.tensor_type.shape.dim],
                "dtype": onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower(),
            }
            for value in values
        ]

    parameters = {item.name for item in model.graph.initializer}
    return {
        "schema_version": SCHEMA_VERSION,
        "target": profile.name,
        "cuda": profile.cuda,
        "host": profile.toolchain.llvm,
        "note": _NOTE,
        "library": "model.so",
        "parameters": "inside model.so",
        "inputs": tensors(item for item in model.graph.input if item.name not in parameters),
        "outputs": tensors(model.graph.output),
        "kernels": kernels,
        "device_code": f"cubin by nvcc {nvcc}" if nvcc else "CUDA C, compiled by NVRTC at load",
        "versions": {"tvm": tvm.__version__},
    }


def _move_into_place(work: Path, folder: Path, names: list[str]) -> Path:
    """The manifest is renamed into place last."""
    package = folder / "package"
    try:
        package.mkdir(parents=True, exist_ok=True)
        (package / "kernels.cubin").unlink(missing_ok=True)
        for name in sorted(names, key=lambda item: item == "package.json"):
            partial = package / f".{name}.partial"
            shutil.copy(work / name, partial)
            os.replace(partial, package / name)
    except OSError as error:
        raise UnwritableOutput(
            f"{package} cannot take the package: {error.strerror or error}.",
            next_step="Give a folder you can write to with --output.",
        ) from None
    return package
