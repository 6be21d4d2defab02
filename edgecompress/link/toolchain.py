"""The C toolchain: zig's clang, assembler, lld and ar, installed by pip and the same everywhere.

Every command runs inside a scratch folder on relative names only, so that no path, date or user
name can reach the image: the same input gives the same bytes.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from edgecompress.errors import BuildFailed
from edgecompress.target.schema import DeviceProfile

_COMMON_FLAGS = ("-std=c99", "-Os", "-ffunction-sections", "-fdata-sections", "-fno-sanitize=all")
_MCU_FLAGS = (
    # zig's driver turns -Oz into -Os; the compiler proper saves a sixth with it.
    "-Xclang",
    "-Oz",
    "-ffreestanding",
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
    "-fomit-frame-pointer",
)
_ASSEMBLER_FLAGS = ("-g0",)  # else zig records the scratch folder in debug information
_TIMEOUT_SECONDS = 600


def target_flags(profile: DeviceProfile) -> list[str]:
    """What tells zig cc which machine it compiles for."""
    flags = ["-target", profile.toolchain.zig_target]
    if profile.toolchain.zig_cpu:
        flags.append(f"-mcpu={profile.toolchain.zig_cpu}")
    return flags


def compiler_flags(profile: DeviceProfile) -> list[str]:
    """Every flag a C file of the device's image is compiled with, defines and includes apart."""
    freestanding = _MCU_FLAGS if profile.kind == "mcu" else ()
    return [*target_flags(profile), *_COMMON_FLAGS, *freestanding]


def compile_c(
    sources: Sequence[str], flags: Sequence[str], profile: DeviceProfile, *, folder: Path
) -> list[str]:
    """C and assembler files to objects beside them.

    Args:
        sources: paths relative to `folder`.
        flags: extra compiler flags (defines, include folders), relative to `folder` too.
        folder: the scratch folder; the objects are written beside their sources.

    Returns:
        The objects' paths relative to `folder`, in the order of `sources`.

    Raises:
        BuildFailed: with the compiler's first line.
    """
    for_c = compiler_flags(profile)
    for_assembler = [*target_flags(profile), *_ASSEMBLER_FLAGS]
    objects = []
    for source in sources:
        target = str(Path(source).with_suffix(".o"))
        language = for_assembler if source.endswith(".S") else for_c
        run_zig(
            ["cc", *language, *flags, "-c", source, "-o", target],
            folder=folder,
            what=f"compiling {Path(source).name} for {profile.name}",
        )
        objects.append(target)
    return objects


def archive(objects: Sequence[str], library: str, *, folder: Path) -> None:
    """A static library without dates or owners."""
    run_zig(["ar", "rcsD", library, *objects], folder=folder, what=f"archiving {library}")


def run_zig(arguments: Sequence[str], *, folder: Path, what: str) -> None:
    """Runs zig in `folder`.

    Raises:
        BuildFailed: zig is missing, took too long, or failed; carries its first error line, and
            everything it said as `__cause__`.
    """
    command = [*_zig(), *arguments]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=_environment(),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BuildFailed(f"{what} took longer than {_TIMEOUT_SECONDS} s.") from None
    except OSError as error:
        raise BuildFailed(f"{what} could not start: {error}.") from None
    if done.returncode != 0:
        raise ToolchainRefused(what, done.stderr or done.stdout)


@cache
def _zig() -> tuple[str, ...]:
    """The package's own program: going through `python -m` costs a start of Python each time."""
    found = importlib.util.find_spec("ziglang")
    if found is not None and found.origin is not None:
        program = Path(found.origin).with_name("zig.exe" if os.name == "nt" else "zig")
        if os.access(program, os.X_OK):
            return (str(program),)
    return (sys.executable, "-m", "ziglang")


class ToolchainRefused(BuildFailed):
    """zig said no.

    Attributes:
        output: everything it printed.
    """

    def __init__(self, what: str, output: str) -> None:
        self.output = output
        next_step = None
        if "No module named ziglang" in output:
            next_step = "Install it: pip install ziglang."
        super().__init__(f"{what} failed: {_first_error(output)}", next_step=next_step)


def _first_error(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line or "No module named" in line]
    return (errors or lines or ["no message"])[0]


def _environment() -> dict[str, str]:
    """The caller's environment, with a cache folder zig can write to and nothing that dates."""
    environment = {**os.environ, "LC_ALL": "C", "SOURCE_DATE_EPOCH": "0"}
    if "ZIG_GLOBAL_CACHE_DIR" not in environment and not _writable(_default_cache()):
        fallback = Path(tempfile.gettempdir()) / f"edgecompress-zig-{_user()}"
        fallback.mkdir(mode=0o700, exist_ok=True)
        environment["ZIG_GLOBAL_CACHE_DIR"] = str(fallback)
    return environment


def _default_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "zig"
    except RuntimeError:  # no home folder at all
        return Path("/nonexistent")


def _writable(folder: Path) -> bool:
    """Whether the folder is there, or can be made, and takes files."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
