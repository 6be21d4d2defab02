"""Through a debug probe, by pyOCD: connect, look which chip it is, program, read back, reset.

pyOCD would run a `pyocd_user.py` and read a `pyocd.yaml` of the working folder, and erase a locked
chip on connecting: it is told not to.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from edgecompress.device.adb_client import printable
from edgecompress.device.chip_ids import chip_name, expected_chip, id_register
from edgecompress.device.flashers.job import Flashed, FlashJob, need
from edgecompress.errors import BadInput, DeviceFault, DeviceNotFound, DeviceTrouble

_READ_BYTES = 4096
_PERCENT = 100
_CORES = {"cortex-m0plus": "cortex-m0+"}


def flash_with_pyocd(job: FlashJob) -> Flashed:
    """Programs every segment and compares it with what is read back.

    Raises:
        DeviceNotFound: no pyOCD, no probe, several and none chosen, or no pack of the target.
        BadInput: the chip is not the image's target.
        DeviceFault: what was read back differs.
        DeviceTrouble: the chip is locked, or the probe or chip does not answer.
    """
    need("pyocd", "probes")
    from pyocd.core.exceptions import Error

    probe = choose_probe(job.probe)
    try:
        with _open_session(probe, job) as session:
            chip = _check_chip(session.target, probe, job)
            _program(session, job)
            _verify(session.target, job)
            session.target.reset()
    except (Error, OSError, ValueError) as error:
        raise _explain(error, job) from None
    return Flashed(_described(probe), chip, "read back, every byte equal")


def choose_probe(wanted: str | None) -> Any:
    """The probe whose unique id is, or begins with, `wanted`; the only one by default.

    Raises:
        DeviceNotFound: none or several; lists them.
    """
    from pyocd.core.exceptions import Error
    from pyocd.core.helpers import ConnectHelper

    try:
        found = list(
            ConnectHelper.get_all_connected_probes(blocking=False, print_wait_message=False)
        )
    except (Error, OSError, ValueError) as error:
        raise DeviceNotFound(f"pyOCD cannot look for probes: {_words(error)}.") from None
    if not found:
        raise DeviceNotFound(
            "No debug probe is connected.",
            next_step="Connect one; on Linux it needs pyOCD's udev rules (docs/devices.md).",
        )
    listed = "; ".join(_described(probe) for probe in found)
    if wanted is None:
        if len(found) > 1:
            raise DeviceNotFound(
                f"{len(found)} debug probes are connected: {listed}.",
                next_step="Choose one with --probe ID.",
            )
        return found[0]
    exact = [probe for probe in found if probe.unique_id.lower() == wanted.lower()]
    starting = [p for p in found if p.unique_id.lower().startswith(wanted.lower())]
    matches = exact or starting
    if len(matches) == 1:
        return matches[0]
    how_many = f"{len(matches)} probes' ids begin" if matches else "No probe's id begins"
    raise DeviceNotFound(
        f"{how_many} with '{printable(wanted)}'.", next_step=f"Connected: {listed}."
    )


@contextlib.contextmanager
def _open_session(probe: Any, job: FlashJob) -> Iterator[Any]:
    """A connected session."""
    from pyocd.core.session import Session

    options = {
        "target_override": job.flashing.pyocd_target,
        "auto_unlock": job.unlock,
        "hide_programming_progress": True,
        "no_config": True,
        "user_script": os.devnull,
        # It changes to this folder for the whole program: the one that is current already.
        "project_dir": os.getcwd(),
    }
    job.progress.stage(f"Connect to {job.flashing.pyocd_target}")
    session = Session(probe, auto_open=False, options=options)
    try:
        session.open()
        yield session
    finally:
        session.close()


def _check_chip(target: Any, probe: Any, job: FlashJob) -> str:
    """What the chip says it is, against the profile: its core, then its identification.

    Where nobody has looked up the identification, what the probe knows of its board must do.

    Raises:
        BadInput: it is another.
    """
    core = getattr(target.selected_core, "name", "")
    wanted = job.profile.core.name
    if core.lower() != _CORES.get(wanted, wanted):
        raise _other_chip(f"has a {printable(core) or 'core of unknown kind'}", job, f"a {wanted}")
    names = (job.profile.name, job.flashing.pyocd_target)
    register, expected = id_register(*names), expected_chip(*names)
    if register is None or expected is None:
        return _check_board(probe, core, job)
    found = _read_id(target, register.address, register.mask)
    if found != expected.value and not job.force:
        name = (
            "does not identify itself as one"
            if found is None
            else f"is {chip_name(found, expected)}"
        )
        raise _other_chip(name, job, expected.name)
    return expected.name if found == expected.value else f"{core} (forced)"


def _check_board(probe: Any, core: str, job: FlashJob) -> str:
    board = probe.associated_board_info
    part = (board.target if board is not None else None) or ""
    wanted = job.flashing.pyocd_target
    if part and not job.force and not part.startswith(wanted) and not wanted.startswith(part):
        raise _other_chip(f"is a {printable(part)} by the probe's board", job, wanted)
    return f"{core} (its part number was not checked)"


def _read_id(target: Any, register: int, mask: int) -> int | None:
    """None where the chip has nothing at that address."""
    from pyocd.core.exceptions import TransferError

    try:
        return target.read32(register) & mask
    except TransferError:
        return None


def _other_chip(found: str, job: FlashJob, wanted: str) -> BadInput:
    return BadInput(
        f"The image is for {job.profile.name} ({wanted}); the chip on the probe {found}.",
        next_step="Compile for the chip that is there, or --force if its number is known to lie.",
    )


def _program(session: Any, job: FlashJob) -> None:
    from pyocd.flash.loader import FlashLoader

    target = session.target
    for address, data in job.segments:
        region = target.memory_map.get_region_for_address(address)
        if region is None or not region.is_flash:
            raise BadInput(
                f"The image has {len(data)} bytes at {address:#010x}, which is not flash of "
                f"pyOCD's {job.flashing.pyocd_target}.",
                next_step="Check flashing.pyocd_target of the target.",
            )
    job.progress.stage(f"Program {job.size_bytes} bytes", 2 * _PERCENT)
    report = _Percents(job)
    loader = FlashLoader(session, report, chip_erase="sector", smart_flash=True, trust_crc=False)
    for address, data in job.segments:
        loader.add_data(address, list(data))
    loader.commit()
    report.finish()


class _Percents:
    """pyOCD tells a fraction done, of erasing first and of programming then; progress counts."""

    def __init__(self, job: FlashJob) -> None:
        self._progress = job.progress
        self._phase = self._last = self._shown = 0

    def __call__(self, fraction: float) -> None:
        percent = min(round(_PERCENT * fraction), _PERCENT)
        if percent < self._last:
            self._phase = 1
        self._last = percent
        self._advance_to(self._phase * _PERCENT + percent)

    def finish(self) -> None:
        """What was in flash already is neither erased nor programmed, and told as nothing."""
        self._advance_to(2 * _PERCENT)

    def _advance_to(self, done: int) -> None:
        if done > self._shown:
            self._progress.advance(done - self._shown)
            self._shown = done


def _verify(target: Any, job: FlashJob) -> None:
    job.progress.stage("Read back", job.size_bytes)
    for address, data in job.segments:
        for start in range(0, len(data), _READ_BYTES):
            expected = data[start : start + _READ_BYTES]
            found = bytes(target.read_memory_block8(address + start, len(expected)))
            if found != expected:
                at = next(i for i, pair in enumerate(zip(found, expected, strict=True))
                          if pair[0] != pair[1])  # fmt: skip
                raise DeviceFault(
                    f"Flash holds {found[at]:#04x} at {address + start + at:#010x} after "
                    f"programming, the image {expected[at]:#04x}.",
                    next_step="Flash again; if it stays, the flash is worn or protected.",
                )
            job.progress.advance(len(expected))


def _explain(error: Exception, job: FlashJob) -> DeviceTrouble:
    """pyOCD's errors as what to do about them."""
    from pyocd.core import exceptions

    words, part = _words(error), job.flashing.pyocd_target
    if isinstance(error, exceptions.TargetSupportError):
        pack = f" (pack {job.flashing.pack})" if job.flashing.pack else ""
        return DeviceNotFound(
            f"pyOCD does not know '{part}'{pack}.", next_step=f"pyocd pack install {part}"
        )
    if any(word in words.lower() for word in ("locked", "approtect", "security", "protected")):
        return DeviceTrouble(
            f"The {job.profile.name} is locked against the probe: {words}.",
            next_step="--unlock erases the whole chip, its settings too, and opens it.",
        )
    if isinstance(error, exceptions.ProbeError):
        return DeviceTrouble(
            f"The probe fails: {words}.",
            next_step="Reconnect it, and end other programs that use it.",
        )
    if isinstance(error, exceptions.FlashFailure):
        return DeviceTrouble(
            f"Programming {job.profile.name} failed: {words}.",
            next_step="Check the supply and write protection (option bytes).",
        )
    return DeviceTrouble(
        f"The chip does not answer the probe as a {part}: {words}.",
        next_step="Check wiring, power, and that the board is the one of the image.",
    )


def _described(probe: Any) -> str:
    return f"{printable(probe.description, 60)} {printable(probe.unique_id, 60)}"


def _words(error: Exception) -> str:
    return printable(str(error) or type(error).__name__).rstrip(".")
