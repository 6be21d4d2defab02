"""A phone for tests: an adb daemon on 127.0.0.1 whose files are a folder and whose shell is sh.

Absolute paths under /data, /sys, /system and /tmp lie in the folder; programs of another processor
that are pushed run under qemu-user.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shlex
import socket
import stat
import struct
import subprocess
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self

from adb_wire import Stream, Transport

_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)
_SHELL_PACKET = struct.Struct("<BI")
_SYNC_REQUEST = struct.Struct("<4sI")
_MAPPED = re.compile(r"(?<![\w./-])/(data|sys|system|tmp)\b")
_AARCH64_ELF = (b"\x7fELF", 183)

LITTLE_BIG = {
    "policy0": ("0 1 2 3", "schedutil", "300000", "1800000", "1200000"),
    "policy4": ("4 5 6 7", "performance", "500000", "2400000", "2400000"),
}
_POLICY_FILES = (
    "related_cpus", "scaling_governor", "cpuinfo_min_freq", "cpuinfo_max_freq", "scaling_cur_freq",
)  # fmt: skip


class Phone:
    """A device, as a context manager; `serial` is what adb calls it after `adb connect`.

    Args:
        folder: becomes its file system.
        qemu: the program that runs aarch64 executables.
        authorizes: whether its user accepts a new key.
        space_bytes: the most one pushed file may hold.
        answer: given a shell command, the bytes to print instead of running it, or None.
        machine, model: what `uname -m` and getprop say.
        clusters: cpufreq policies: related CPUs, governor, least, most and current kHz.
    """

    def __init__(
        self,
        folder: Path,
        *,
        qemu: str = "qemu-aarch64",
        authorizes: bool = True,
        space_bytes: int = 1 << 30,
        answer: Callable[[str], Iterable[bytes] | None] = lambda _command: None,
        machine: str = "aarch64",
        model: str = "Test Phone",
        clusters: dict[str, tuple[str, ...]] = LITTLE_BIG,
        tools: bool = True,
    ) -> None:
        self.folder, self._qemu, self._space_bytes = folder, qemu, space_bytes
        self.authorizes, self._answer = authorizes, answer
        self.commands: list[str] = []
        self._connections: list[socket.socket] = []
        self._programs = 0
        self._make_files(machine, model, clusters, tools)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self.serial = f"127.0.0.1:{self.address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.vanish()

    def vanish(self) -> None:
        """As a cable pulled: every connection breaks and none is taken any more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def path(self, name: str) -> Path:
        """Where one of the device's absolute paths lies on this machine."""
        return self.folder / name.lstrip("/")

    def pushed(self) -> list[str]:
        """Names of the files in /data/local/tmp."""
        return sorted(os.listdir(self.path("/data/local/tmp")))

    def _make_files(
        self, machine: str, model: str, clusters: dict[str, tuple[str, ...]], tools: bool
    ) -> None:
        for name in ("/data/local/tmp", "/sys", "/system/bin", "/tmp", "/programs"):
            self.path(name).mkdir(parents=True)
        for policy, values in clusters.items():
            folder = self.path(f"/sys/devices/system/cpu/cpufreq/{policy}")
            folder.mkdir(parents=True)
            for name, value in zip(_POLICY_FILES, values, strict=True):
                (folder / name).write_text(f"{value}\n")
        for index, (zone, millidegrees) in enumerate((("cpu", 41500), ("cpu", 43000))):
            folder = self.path(f"/sys/class/thermal/thermal_zone{index}")
            folder.mkdir(parents=True)
            (folder / "type").write_text(f"{zone}\n")
            (folder / "temp").write_text(f"{millidegrees}\n")
        self._tool("uname", f"[ $1 = -m ] && echo {shlex.quote(machine)} || echo 6.1.0-test")
        self._tool(
            "getprop",
            f"case $1 in ro.product.model) echo {shlex.quote(model)};; "
            "ro.build.version.release) echo 14;; *) echo test/phone/1;; esac",
        )
        if tools:
            mask = shlex.quote(str(self.path("/programs/mask")))
            self._tool("taskset", f'echo "$1" > {mask}; shift; exec "$@"')

    def _tool(self, name: str, script: str) -> None:
        path = self.path(f"/system/bin/{name}")
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def _accept(self) -> None:
        known_keys: list[bytes] = []
        banner = (
            "device::ro.product.name=test;ro.product.model=Test_Phone;ro.product.device=test;"
            "features=shell_v2,cmd,fixed_push_mkdir"
        )
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._connections.append(connection)
                transport = Transport(
                    connection, self._serve, lambda: self.authorizes, known_keys, banner
                )
                threading.Thread(target=transport.run, daemon=True).start()

    def _serve(self, stream: Stream, service: str) -> None:
        kind, _, argument = service.partition(":")
        if kind == "sync":
            self._sync(stream)
        elif kind.startswith("shell") and "v2" in kind.split(","):
            self.commands.append(argument)
            self._shell(stream, argument)

    def _shell(self, stream: Stream, command: str) -> None:
        printed = self._answer(command)
        if printed is not None:
            for data in printed:
                stream.write(_SHELL_PACKET.pack(_STDOUT, len(data)) + data)
            stream.write(_SHELL_PACKET.pack(_EXIT, 1) + b"\0")
            return
        process = subprocess.Popen(
            ["sh", "-c", _MAPPED.sub(lambda match: f"{self.folder}/{match[1]}", command)],
            cwd=self.path("/data/local/tmp"),
            env={**os.environ, "PATH": self._search_path()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        threading.Thread(target=_feed, args=(stream, process), daemon=True).start()
        _pump(stream, process)
        stream.write(_SHELL_PACKET.pack(_EXIT, 1) + bytes([process.wait() & 0xFF]))

    def _search_path(self) -> str:
        """The device's own tools before this machine's; this machine's taskset never."""
        own = str(self.path("/system/bin"))
        if (self.path("/system/bin") / "taskset").exists():
            return f"{own}{os.pathsep}{os.environ['PATH']}"
        for name in ("sh", "head", "chmod", "rm", "cat"):
            link = self.path(f"/system/bin/{name}")
            if not link.exists():
                found = next(
                    Path(folder) / name
                    for folder in os.environ["PATH"].split(os.pathsep)
                    if (Path(folder) / name).exists()
                )
                link.symlink_to(found)
        return own

    def _sync(self, stream: Stream) -> None:
        while True:
            request, length = _SYNC_REQUEST.unpack(stream.read(8))
            if request == b"QUIT":
                return
            name = stream.read(length).decode()
            if request == b"STAT":
                stream.write(b"STAT" + self._stat(name))
            elif request == b"SEND":
                self._receive_file(stream, *name.rsplit(",", 1))
            else:
                _fail(stream, "unknown request")
                return

    def _stat(self, name: str) -> bytes:
        try:
            found = self.path(name).stat()
        except OSError:
            return struct.pack("<3I", 0, 0, 0)
        return struct.pack("<3I", found.st_mode, found.st_size, int(found.st_mtime))

    def _receive_file(self, stream: Stream, name: str, mode: str) -> None:
        content, full = bytearray(), False
        while True:
            kind, length = _SYNC_REQUEST.unpack(stream.read(8))
            if kind == b"DONE":
                break
            part = stream.read(length)
            # As adbd does: a failure is told only once the host has sent everything.
            full = full or len(content) + length > self._space_bytes
            content += b"" if full else part
        path = self.path(name)
        self._store(path, bytes(content))
        path.chmod(stat.S_IMODE(int(mode)) | 0o600)
        if full:
            _fail(stream, "write failed: No space left on device")
        else:
            stream.write(_SYNC_REQUEST.pack(b"OKAY", 0))

    def _store(self, path: Path, content: bytes) -> None:
        """An executable of another processor is kept aside; a script in its place starts it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if (content[:4], int.from_bytes(content[18:20], "little")) != _AARCH64_ELF:
            path.write_bytes(content)
            return
        self._programs += 1
        program = self.path(f"/programs/{self._programs}")
        program.write_bytes(content)
        program.chmod(0o755)
        path.write_text(
            f'#!/bin/sh\nexec {shlex.quote(self._qemu)} {shlex.quote(str(program))} "$@"\n'
        )


def _fail(stream: Stream, message: str) -> None:
    stream.write(_SYNC_REQUEST.pack(b"FAIL", len(message)) + message.encode())


def _feed(stream: Stream, process: subprocess.Popen[bytes]) -> None:
    """From the host to the program's standard input, until either ends."""
    assert process.stdin is not None
    with contextlib.suppress(EOFError, OSError), process.stdin as stdin:
        while True:
            kind, length = _SHELL_PACKET.unpack(stream.read(_SHELL_PACKET.size))
            data = stream.read(length)
            if kind == _CLOSE_STDIN:
                return
            if kind == _STDIN:
                stdin.write(data)


def _pump(stream: Stream, process: subprocess.Popen[bytes]) -> None:
    """From the program to the host. A program whose host has left runs on unheard to its end."""
    kinds = {process.stdout: _STDOUT, process.stderr: _STDERR}
    with selectors.DefaultSelector() as selector:
        for pipe, kind in kinds.items():
            assert pipe is not None
            selector.register(pipe, selectors.EVENT_READ, kind)
        while selector.get_map():
            for key, _ in selector.select():
                data = os.read(key.fd, 32768)
                if not data:
                    selector.unregister(key.fileobj)
                elif not stream.ended:
                    with contextlib.suppress(EOFError, OSError):
                        stream.write(_SHELL_PACKET.pack(key.data, len(data)) + data)
    for pipe in kinds:
        assert pipe is not None
        pipe.close()
