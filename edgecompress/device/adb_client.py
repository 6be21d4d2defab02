"""The genuine adb client, driven as a program: no shell of this machine, bounded time and output.

adbutils says which adb that is: one on PATH, else the one it bundles.
"""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgecompress.errors import DeviceNotFound, DeviceTimeout, DeviceTrouble, ProtocolError

OUTPUT_LIMIT_BYTES = 256 * 1024
_START_SECONDS = 20
_COMMAND_SECONDS = 20
_PUSH_SECONDS = 300
_SHOWN_CHARACTERS = 200
# The states that `adb devices` prints: to_string(ConnectionState) in adb's sources.
_STATES = (
    "device|offline|unauthorized|authorizing|connecting|bootloader|recovery|rescue|sideload|host|"
    "detached|no permissions|unknown"
)
_DEVICE = re.compile(rf"(?P<serial>\S+)\s+(?P<state>{_STATES})\b(?P<details>.*)")
_NETWORK_SERIAL = re.compile(r"[\w.\-\[\]:]+:\d{1,5}", re.ASCII)
_ENABLE = "Enable USB debugging on the device, connect it, and accept this computer's key there."

_ADVICE = {
    "unauthorized": "Accept this computer's key on the device's screen, then try again.",
    "authorizing": "Accept this computer's key on the device's screen, then try again.",
    "offline": "Reconnect the cable, or run `adb reconnect offline`.",
    "no permissions": "Give your user access to the USB device (udev rules, docs/devices.md).",
    "bootloader": "Start Android on it: `fastboot reboot`.",
}


@dataclass(frozen=True)
class AdbDevice:
    """A line of `adb devices -l`. `state` "device" means usable."""

    serial: str
    state: str
    model: str = ""

    @property
    def usable(self) -> bool:
        return self.state == "device"


@dataclass(frozen=True)
class Answer:
    """What a finished command left: exit code, standard output and standard error."""

    code: int
    output: bytes
    errors: bytes

    def last_words(self) -> str:
        """The end of the last line of what it complained of, safe to print."""
        lines = (self.errors or self.output).decode(errors="replace").strip().splitlines()
        if not lines:
            return "nothing was said"
        # The reason comes last, after file names of any length.
        end = lines[-1][-_SHOWN_CHARACTERS:].strip().rstrip(".")
        return printable(end if len(lines[-1]) <= _SHOWN_CHARACTERS else f"...{end}")


def printable(text: str, limit: int = _SHOWN_CHARACTERS) -> str:
    """Bounded, and without the control characters a device could steer a terminal with."""
    clean = "".join(char if char.isprintable() else "?" for char in text)
    return clean if len(clean) <= limit + 3 else clean[:limit] + "..."


class AdbClient:
    """One adb program and the server it starts.

    The server is started without multicast DNS, whose socket would listen beyond loopback; one
    that already runs is used as it is.

    Raises:
        DeviceNotFound: no adb here, or its server does not start.
    """

    def __init__(self) -> None:
        self.program = _adb_program()
        self.environment = {"ADB_MDNS": "0", **os.environ}
        started = self.run("start-server", timeout_s=_START_SECONDS)
        if started.code != 0:
            raise DeviceNotFound(f"The adb server does not start: {started.last_words()}.")

    def command(self, serial: str, *arguments: str) -> list[str]:
        """The argument vector of an adb command for one device."""
        return [self.program, "-s", serial, *arguments]

    def run(
        self, *arguments: str, serial: str | None = None, timeout_s: float = _COMMAND_SECONDS
    ) -> Answer:
        """Runs `adb [-s SERIAL] ARGUMENTS` to its end.

        Raises:
            DeviceTimeout: it takes longer than `timeout_s`.
            ProtocolError: it prints more than 256 KiB.
        """
        chosen = [] if serial is None else ["-s", serial]
        what = f"adb {arguments[0]}" + (f" on {printable(serial)}" if serial else "")
        try:
            return _run_bounded(
                [self.program, *chosen, *arguments], self.environment, timeout_s, what
            )
        except OSError as error:
            raise DeviceNotFound(f"{self.program} cannot be started: {error.strerror}.") from None

    def shell(self, serial: str, script: str, *, timeout_s: float = _COMMAND_SECONDS) -> Answer:
        """Runs `script` by the device's sh. Whatever varies in it is the caller's to quote."""
        return self.run("shell", "-T", script, serial=serial, timeout_s=timeout_s)

    def push(self, serial: str, local: Path, remote: str) -> None:
        """Copies a file to the device.

        Raises:
            DeviceTrouble: it did not arrive; says why in the device's words.
        """
        answer = self.run(
            "push", str(local.absolute()), remote, serial=serial, timeout_s=_PUSH_SECONDS
        )
        if answer.code != 0:
            words = answer.last_words()
            full = "No space left" in words
            raise DeviceTrouble(
                f"{local.name!r} ({local.stat().st_size} bytes) could not be pushed to "
                f"{printable(serial)}: {words}.",
                next_step="Free some space on the device." if full else None,
            )

    def devices(self) -> list[AdbDevice]:
        """What is connected, in adb's order."""
        answer = self.run("devices", "-l")
        if answer.code != 0:
            raise DeviceNotFound(f"adb cannot list its devices: {answer.last_words()}.")
        matches = map(_DEVICE.match, answer.output.decode(errors="replace").splitlines())
        return [_parsed(match) for match in matches if match is not None]

    def choose(self, serial: str | None) -> AdbDevice:
        """The device of that serial number, or the only one; it is ready for commands.

        A serial of the form host:port that is not connected yet is connected to.

        Raises:
            DeviceNotFound: none, several and none chosen, or it cannot be used; says what to do.
        """
        serial = serial or os.environ.get("ANDROID_SERIAL") or None
        found = self.devices()
        if serial is None:
            device = _only(found)
        else:
            device = _named(found, serial) or self._connected(serial)
            if device is None:
                raise DeviceNotFound(
                    f"adb knows no device '{printable(serial)}'.",
                    next_step=f"Connected: {_listed(found)}." if found else _ENABLE,
                )
        if not device.usable:
            raise DeviceNotFound(
                f"adb device {printable(device.serial)} is {device.state}.",
                next_step=_ADVICE.get(device.state, "Reconnect it, and look at its screen."),
            )
        return device

    def _connected(self, serial: str) -> AdbDevice | None:
        """The first connection with a key the device does not know fails, the next finds it."""
        if _NETWORK_SERIAL.fullmatch(serial) is None:
            return None
        for _ in range(2):
            self.run("connect", serial)
            device = _named(self.devices(), serial)
            if device is not None and device.usable:
                return device
            time.sleep(0.5)
        return _named(self.devices(), serial)


def _adb_program() -> str:
    try:
        from adbutils import adb_path
        from adbutils.errors import AdbError
    except ImportError:
        raise DeviceNotFound(
            "adb devices need the adbutils package.", next_step="pip install adbutils."
        ) from None
    try:
        return str(adb_path())
    except AdbError:
        raise DeviceNotFound(
            "There is no adb program here.", next_step="Install Android's platform tools."
        ) from None


def _run_bounded(
    command: Sequence[str], environment: dict[str, str], timeout_s: float, what: str
) -> Answer:
    deadline = time.monotonic() + timeout_s
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    ) as process:
        try:
            output, errors = _read_both(process, deadline, what)
            code = process.wait(max(deadline - time.monotonic(), 0.1))
        except (TimeoutError, subprocess.TimeoutExpired):
            raise DeviceTimeout(f"{what} did not end within {timeout_s:g} s.") from None
        finally:
            # Leaving the block waits for the program: after a fault it must not be left running.
            process.kill()
    return Answer(code, output, errors)


def _read_both(process: subprocess.Popen[bytes], deadline: float, what: str) -> tuple[bytes, bytes]:
    assert process.stdout is not None
    assert process.stderr is not None
    heard = {process.stdout: bytearray(), process.stderr: bytearray()}
    with selectors.DefaultSelector() as selector:
        for stream in heard:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(deadline - time.monotonic(), 0))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fileobj)
                heard[key.fileobj] += data  # type: ignore[index]
            if sum(map(len, heard.values())) > OUTPUT_LIMIT_BYTES:
                raise ProtocolError(f"{what} printed more than {OUTPUT_LIMIT_BYTES} bytes.")
    output, errors = heard.values()
    return bytes(output), bytes(errors)


def _parsed(match: re.Match[str]) -> AdbDevice:
    model = re.search(r"\bmodel:(\S+)", match["details"])
    return AdbDevice(
        printable(match["serial"]), match["state"], printable(model[1], 60) if model else ""
    )


def _named(found: list[AdbDevice], serial: str) -> AdbDevice | None:
    return next((device for device in found if device.serial == serial), None)


def _only(found: list[AdbDevice]) -> AdbDevice:
    usable = [device for device in found if device.usable]
    if len(usable) == 1:
        return usable[0]
    if usable:
        raise DeviceNotFound(
            f"{len(usable)} adb devices are connected: {_listed(usable)}.",
            next_step=f"Choose one with --device adb:{usable[0].serial}.",
        )
    if len(found) == 1:
        return found[0]
    if found:
        raise DeviceNotFound(f"No adb device is ready: {_listed(found)}.")
    raise DeviceNotFound("No adb device is connected.", next_step=_ENABLE)


def _listed(found: list[AdbDevice]) -> str:
    return ", ".join(
        device.serial + ("" if device.usable else f" ({device.state})") for device in found
    )
