"""qemu-system-arm: a second opinion on the virtual board, and the only emulator of the Cortex-M55.

With `-icount shift=0` one instruction takes one virtual nanosecond, so a machine's timer ticks once
every 1e9 / its hertz instructions, deterministically.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from edgecompress.device.ports.base import Clock
from edgecompress.device.ports.pipe import PipePort
from edgecompress.errors import DeviceNotFound
from edgecompress.target.schema import DeviceProfile

_EMULATOR = "qemu-system-arm"

# The clock each machine gives its timer: SYSCLK_FRQ in QEMU's hw/arm/mps2.c and mps2-tz.c.
_TIMER_HZ = {
    "mps2-an385": 25_000_000,
    "mps2-an386": 25_000_000,
    "mps2-an500": 25_000_000,
    "mps2-an505": 20_000_000,
    # its FPGAIO counter, which hw/misc/mps2-fpgaio.c runs at 20 MHz whatever the board's clock
    "mps3-an547": 20_000_000,
}


def open_qemu(image: Path, profile: DeviceProfile) -> PipePort:
    """Starts the image on the profile's QEMU machine, its UART on the emulator's standard streams.

    Raises:
        DeviceNotFound: the profile names no machine, or QEMU is not installed.
    """
    machine = profile.qemu.machine if profile.qemu else ""
    if not machine:
        raise DeviceNotFound(
            f"{profile.name} names no QEMU machine.", next_step="Use --device virtual."
        )
    emulator = shutil.which(_EMULATOR)
    if emulator is None:
        raise DeviceNotFound(
            f"{profile.name} on QEMU needs {_EMULATOR}, which is not on PATH.",
            next_step="apt install qemu-system-arm.",
        )
    command = [
        emulator, "-M", machine, "-kernel", str(image), "-display", "none", "-monitor", "none",
        "-serial", "stdio", "-icount", "shift=0,sleep=off",
    ]  # fmt: skip
    timer_hz = _TIMER_HZ.get(machine)
    return PipePort(
        command,
        name=f"{profile.name} on QEMU {machine}",
        kind="qemu",
        clock=Clock(
            "emulated instructions", instructions_per_tick=1e9 / timer_hz if timer_hz else None
        ),
    )
