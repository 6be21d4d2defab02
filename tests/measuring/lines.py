"""The tiny image behind the loopback, as a serial server puts a board on a network."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import serial.rfc2217


class _Line:
    """What pyserial's PortManager asks of a local serial port; a pipe has none of it."""

    baudrate, bytesize, parity, stopbits = 115200, 8, "N", 1
    xonxoff = rtscts = dsrdtr = break_condition = dtr = rts = False
    cts = dsr = ri = cd = True

    def reset_input_buffer(self) -> None: ...

    def reset_output_buffer(self) -> None: ...


@contextlib.contextmanager
def board_on_a_network(
    firmware: Path, *, rfc2217: bool = False, pull_after_bytes: int | None = None
) -> Iterator[str]:
    """A `--device` URL.

    Args:
        pull_after_bytes: the board's side is closed once it has said this much.
    """
    program = subprocess.Popen([firmware], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(
        target=_serve, args=(server, program, rfc2217, pull_after_bytes), daemon=True
    ).start()
    scheme = "rfc2217" if rfc2217 else "socket"
    try:
        yield f"{scheme}://127.0.0.1:{server.getsockname()[1]}"
    finally:
        program.kill()
        program.wait()
        server.close()


def _serve(
    server: socket.socket, program: subprocess.Popen[bytes], rfc2217: bool, pull: int | None
) -> None:
    assert program.stdin is not None
    connection, _ = server.accept()
    unescaped: Callable[[bytes], bytes] = bytes
    escaped: Callable[[bytes], bytes] = bytes
    if rfc2217:
        connection_file = connection.makefile("wb", buffering=0)
        manager = serial.rfc2217.PortManager(_Line(), connection_file)
        unescaped = lambda data: b"".join(manager.filter(data))  # noqa: E731
        escaped = lambda data: b"".join(manager.escape(data))  # noqa: E731
    threading.Thread(target=_upward, args=(connection, program, escaped, pull), daemon=True).start()
    with contextlib.suppress(OSError):
        while data := connection.recv(4096):
            program.stdin.write(unescaped(data))


def _upward(
    connection: socket.socket,
    program: subprocess.Popen[bytes],
    escaped: Callable[[bytes], bytes],
    pull: int | None,
) -> None:
    assert program.stdout is not None
    said = 0
    with contextlib.suppress(OSError):
        while data := program.stdout.read(4096):
            connection.sendall(escaped(data))
            said += len(data)
            if pull is not None and said >= pull:
                connection.shutdown(socket.SHUT_RDWR)
                connection.close()
                return
