"""A device that is a program of this machine, spoken to over its standard input and output."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence

from edgecompress.device.ports.base import Clock, PortKind
from edgecompress.errors import DeviceFault, DeviceNotFound, DeviceTimeout

_READ_BYTES = 4096
_STOP_SECONDS = 2
_LAST_WORDS_BYTES = 4096
_SHOWN_CHARACTERS = 200


class PipePort:
    """A running program.

    Args:
        command: the program and its arguments.
        name: what it is, for messages.
        kind: how it was asked for.
        clock: what its ticks are worth.
        environment: its environment variables; None: this program's own.

    Raises:
        DeviceNotFound: it cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        name: str,
        kind: PortKind,
        clock: Clock,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.clock = name, clock
        self.kind: PortKind = kind
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env=environment,
            )
        except OSError as error:
            raise DeviceNotFound(f"{command[0]} cannot be started: {error.strerror}.") from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input = self._process.stdin.fileno()
        self._output = self._process.stdout.fileno()
        os.set_blocking(self._input, False)
        self._errors = bytearray()
        self._listener = threading.Thread(target=self._hear_errors, daemon=True)
        self._listener.start()

    def write(self, data: bytes, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while data:
            remaining = max(deadline - time.monotonic(), 0)
            _, writable, _ = select.select([], [self._input], [], remaining)
            if not writable:
                raise DeviceTimeout(f"{self.name} took no input for {timeout_s:g} s.")
            try:
                data = data[os.write(self._input, data) :]
            except BlockingIOError:
                continue
            except OSError as error:
                self._wait_briefly()
                self.check()
                raise DeviceFault(f"{self.name} is gone: {error.strerror}.") from None

    def read(self, timeout_s: float) -> bytes:
        readable, _, _ = select.select([self._output], [], [], timeout_s)
        if not readable:
            return b""
        data = os.read(self._output, _READ_BYTES)
        if not data:
            self._wait_briefly()
            self.check()
            raise DeviceFault(f"{self.name} closed its output.")
        return data

    def check(self) -> None:
        code = self._process.poll()
        if code is None:
            return
        how = f"exit code {code}"
        if code < 0:
            names = {member.value: member.name for member in signal.Signals}
            how = f"signal {names.get(-code, -code)}"
        raise DeviceFault(f"{self.name} ended with {how}{self._last_words()}.")

    def _hear_errors(self) -> None:
        """Keeps the end of what the program writes to standard error, however much that is."""
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            while data := stream.read(_LAST_WORDS_BYTES):
                self._errors += data
                del self._errors[:-_LAST_WORDS_BYTES]

    def _last_words(self) -> str:
        self._listener.join(_STOP_SECONDS)
        lines = self._errors.decode(errors="replace").strip().splitlines()
        if not lines:
            return ""
        last = "".join(char if char.isprintable() else "?" for char in lines[-1])
        return f": {last[:_SHOWN_CHARACTERS]}"

    def _wait_briefly(self) -> None:
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            return

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process.terminate()
        self._wait_briefly()
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._listener.join(_STOP_SECONDS)
