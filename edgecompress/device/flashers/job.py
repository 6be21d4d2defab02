"""What every flashing tool is given and gives back, and running one that is a program."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from intelhex import IntelHex

from edgecompress.device.adb_client import printable
from edgecompress.errors import DeviceNotFound, DeviceTimeout
from edgecompress.progress import Progress
from edgecompress.target.schema import DeviceProfile, Flashing

_OUTPUT_CHARACTERS = 64 * 1024
_TOOL_SECONDS = 600


@dataclass(frozen=True)
class FlashJob:
    """An image that belongs on a chip.

    Attributes:
        segments: what goes where in flash: addresses and bytes, in order, not touching.
        probe: the debug probe's unique id, or the start of it; None: the only one.
        port: the serial port, without "serial:"; None: the likely one.
        drive: where a UF2 boot loader's drive is mounted.
        unlock: a locked chip may be erased whole to open it.
        force: the chip's identification need not be the target's.
    """

    profile: DeviceProfile
    flashing: Flashing
    segments: tuple[tuple[int, bytes], ...]
    progress: Progress
    probe: str | None = None
    port: str | None = None
    drive: Path | None = None
    unlock: bool = False
    force: bool = False

    @property
    def size_bytes(self) -> int:
        return sum(len(data) for _, data in self.segments)

    def memory(self) -> IntelHex:
        """The segments, gaps 0xFF as erased flash reads."""
        memory = IntelHex()
        memory.padding = 0xFF
        for address, data in self.segments:
            memory.frombytes(data, offset=address)
        return memory

    @contextlib.contextmanager
    def binary(self) -> Iterator[Path]:
        """A file of all segments from the first address on, for tools that take one."""
        with tempfile.TemporaryDirectory(prefix="edgecompress-") as folder:
            path = Path(folder) / "firmware.bin"
            path.write_bytes(self.memory().tobinstr())
            yield path


@dataclass(frozen=True)
class Flashed:
    """What a tool did: where, on which chip, and how it was checked."""

    where: str
    chip: str
    verified: str


def run_tool(
    module: str,
    arguments: list[str],
    on_line: Callable[[str], None] = lambda _line: None,
    timeout_s: float = _TOOL_SECONDS,
) -> tuple[int, str]:
    """Runs `python -m module arguments`; its exit code and the end of what it printed.

    The flashing tools of other licences are run as the programs they are, never imported.

    Args:
        on_line: given every line as it comes, clean of control characters.

    Raises:
        DeviceTimeout: it does not end in time.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"},
    )
    heard: list[str] = []
    late = threading.Event()

    def give_up() -> None:
        late.set()
        process.kill()

    alarm = threading.Timer(timeout_s, give_up)
    alarm.start()
    try:
        _hear(process, heard, on_line)
        code = process.wait()
    finally:
        alarm.cancel()
        process.kill()
        process.wait()
    if late.is_set():
        raise DeviceTimeout(f"{module} did not end within {timeout_s:g} s.")
    return code, "\n".join(heard)


def _hear(
    process: subprocess.Popen[bytes], heard: list[str], on_line: Callable[[str], None]
) -> None:
    """Progress bars rewrite their line with carriage returns and backspaces."""
    assert process.stdout is not None
    kept = 0
    with process.stdout as stream:
        pending = b""
        while data := os.read(stream.fileno(), 4096):
            *lines, pending = re.split(rb"[\r\n]+", (pending + data)[-_OUTPUT_CHARACTERS:])
            for raw in lines:
                line = printable(raw.decode(errors="replace").strip(), 300)
                if not line:
                    continue
                heard.append(line)
                kept += len(line)
                while kept > _OUTPUT_CHARACTERS:
                    kept -= len(heard.pop(0))
                on_line(line)
        if pending.strip():
            heard.append(printable(pending.decode(errors="replace").strip(), 300))


def need(module: str, extra: str) -> None:
    """Raises DeviceNotFound where an optional tool is not installed."""
    import importlib.util

    if importlib.util.find_spec(module) is None:
        raise DeviceNotFound(
            f"Flashing this way needs {module}, which is not installed.",
            next_step=f"pip install 'edgecompress[{extra}]'.",
        )


def serial_port_for(job: FlashJob) -> str:
    """The port given, or the only one whose adapter is likely to lead to this target.

    Raises:
        DeviceNotFound: none, or several.
    """
    if job.port is not None:
        return job.port
    import fnmatch

    from edgecompress.device.discover import serial_devices

    found = serial_devices([job.profile.name])
    likely = [
        device
        for device in found
        if any(fnmatch.fnmatchcase(job.profile.name, one) for one in device.likely_targets)
    ]
    if len(likely) == 1:
        return likely[0].address.removeprefix("serial:")
    listed = ", ".join(device.address for device in likely or found) or "no serial port at all"
    raise DeviceNotFound(
        f"{len(likely) or 'No'} serial port{'s lead' if len(likely) > 1 else ' leads'} to a likely "
        f"{job.profile.name}; there is {listed}.",
        next_step="Name one with --device serial:PORT.",
    )


def elapsed(start_s: float) -> float:
    """Seconds since a `time.monotonic()`."""
    return time.monotonic() - start_s
