"""Serial lines as pyserial knows them: a terminal pair, a raw socket, an RFC 2217 server."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import serial
import serial.rfc2217
import tiny_image as tiny

from edgecompress.device.harness import open_device
from edgecompress.device.ports.serial import SerialPort
from edgecompress.device.protocol import Client
from edgecompress.errors import DeviceFault, DeviceNotFound, DeviceTrouble
from edgecompress.target.schema import DeviceProfile

TinyImage = Callable[..., Path]
X = np.random.default_rng(11).integers(-100, 100, (1, 32)).astype(np.int8)


@contextmanager
def on_a_terminal(firmware: Path) -> Iterator[str]:
    """The posix runner at one end of a terminal pair; the other end's path."""
    master, slave = os.openpty()
    tty.setraw(slave)
    with subprocess.Popen([str(firmware)], stdin=master, stdout=master) as program:
        try:
            yield f"serial:{os.ttyname(slave)}"
        finally:
            program.kill()
    os.close(master)
    os.close(slave)


class _Wire:
    """What PortManager writes its escaped bytes and its negotiation to."""

    def __init__(self, connection: socket.socket) -> None:
        self.write = connection.sendall


def _pump(source: Callable[[], bytes], sink: Callable[[bytes], object]) -> None:
    try:
        while data := source():
            sink(data)
    except OSError:
        return


@contextmanager
def on_the_network(firmware: Path, scheme: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """The posix runner behind a server; its URL and what pulls the cable."""
    connections: list[socket.socket] = []

    def serve() -> None:
        connection = server.accept()[0]
        connections.append(connection)
        manager = None
        if scheme == "rfc2217":
            port = serial.serial_for_url("loop://")
            manager = serial.rfc2217.PortManager(port, _Wire(connection))
        assert program.stdin is not None
        assert program.stdout is not None
        output, into = program.stdout.fileno(), program.stdin

        def receive() -> bytes:
            while data := connection.recv(1024):
                clean = b"".join(manager.filter(data)) if manager else data
                if clean:
                    return clean
            return b""

        def send(data: bytes) -> None:
            connection.sendall(b"".join(manager.escape(data)) if manager else data)

        threading.Thread(
            target=_pump, args=(lambda: os.read(output, 1024), send), daemon=True
        ).start()
        _pump(receive, into.write)

    def pull() -> None:
        connections[0].shutdown(socket.SHUT_RDWR)

    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        subprocess.Popen(
            [str(firmware)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        ) as program,
    ):
        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"{scheme}://127.0.0.1:{server.getsockname()[1]}", pull
        finally:
            program.kill()
            for connection in connections:
                connection.close()


def test_a_terminal_pair(tiny_image: TinyImage, x86: DeviceProfile) -> None:
    folder = tiny_image("x86-64")
    with on_a_terminal(folder / "firmware") as url, open_device(folder, x86, url) as session:
        assert np.array_equal(session.infer(X), tiny.output_reference(X))
        assert session.port.kind == "serial"


@pytest.mark.parametrize("scheme", ["socket", "rfc2217"])
def test_a_board_behind_a_server(tiny_image: TinyImage, x86: DeviceProfile, scheme: str) -> None:
    folder = tiny_image("x86-64")
    with on_the_network(folder / "firmware", scheme) as (url, pull):
        session = open_device(folder, x86, url)
        try:
            assert np.array_equal(session.infer(X), tiny.output_reference(X))
            pull()
            with pytest.raises(DeviceFault, match="is gone"):
                session.infer(X)
        finally:
            session.close()


def _flooding_server(data: bytes) -> tuple[socket.socket, int]:
    """Answers the telnet negotiation first, if there is one, then floods."""
    server = socket.create_server(("127.0.0.1", 0))

    def flood() -> None:
        connection = server.accept()[0]
        connection.settimeout(1)
        manager = serial.rfc2217.PortManager(serial.serial_for_url("loop://"), _Wire(connection))
        try:
            if data.startswith(b"negotiated"):
                started = time.monotonic()
                while time.monotonic() - started < 1.5:
                    b"".join(manager.filter(connection.recv(1024)))
        except OSError:
            pass
        _pump(lambda: data, connection.sendall)

    threading.Thread(target=flood, daemon=True).start()
    return server, server.getsockname()[1]


@pytest.mark.parametrize(
    ("scheme", "data"),
    [("socket", b"A" * 65536), ("socket", b"\x1b[2Jspam\r\n" * 6000),
     ("rfc2217", b"A" * 65536), ("rfc2217", b"negotiated\r\n" * 6000)],
)  # fmt: skip
def test_a_server_that_floods_is_left_in_time_and_in_little_memory(
    scheme: str, data: bytes
) -> None:
    server, number = _flooding_server(data)
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with server, pytest.raises(DeviceTrouble) as caught:
        _synchronize(f"{scheme}://127.0.0.1:{number}?timeout=2" if scheme == "rfc2217" else
                     f"{scheme}://127.0.0.1:{number}")  # fmt: skip
    assert str(caught.value).isprintable()
    assert time.monotonic() - started < 20
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 64 << 10


def _synchronize(url: str) -> None:
    port = SerialPort(url)
    try:
        # Idle while it floods: nobody reads, nothing may pile up.
        time.sleep(0.5)
        Client(port).synchronize(patience_s=3)
    finally:
        port.close()


@pytest.mark.parametrize(
    "url",
    ["/dev/nowhere", "socket://127.0.0.1:1", "rfc2217://127.0.0.1:1", "nosuch://x", "socket://"],
)
def test_what_cannot_be_opened_is_not_found(url: str) -> None:
    with pytest.raises(DeviceNotFound, match="cannot be opened"):
        SerialPort(url)
