"""The device's side of adb's transport: packets, streams and key exchange, on loopback only.

Written after protocol.txt and adb_auth in adb's sources (packages/modules/adb): six 32-bit words a
header (command, two arguments, length, sum of the payload, complement of the command).
"""

from __future__ import annotations

import base64
import contextlib
import secrets
import socket
import struct
import threading
from collections.abc import Callable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

_HEADER = struct.Struct("<6I")
_COMMANDS = {
    name: struct.unpack("<I", name.encode())[0]
    for name in ("CNXN", "AUTH", "OPEN", "OKAY", "WRTE", "CLSE")
}
_NAMES = {number: name for name, number in _COMMANDS.items()}
_VERSION = 0x01000001
_MAX_PAYLOAD = 256 * 1024
_CHUNK_BYTES = 64 * 1024
_TOKEN, _SIGNATURE, _PUBLIC_KEY = 1, 2, 3
_MODULUS_BYTES = 256


class Stream:
    """One service the host opened. Reads block; a write waits until the host took the last one."""

    def __init__(self, transport: Transport, local: int, remote: int) -> None:
        self._transport, self.local, self.remote = transport, local, remote
        self._acknowledged = threading.Semaphore(0)
        self._received = bytearray()
        self._arrived = threading.Condition()
        self._ended = False

    @property
    def ended(self) -> bool:
        return self._ended

    def feed(self, data: bytes) -> None:
        with self._arrived:
            self._received += data
            self._arrived.notify_all()

    def acknowledge(self) -> None:
        self._acknowledged.release()

    def end(self) -> None:
        with self._arrived:
            self._ended = True
            self._arrived.notify_all()
        self._acknowledged.release()

    def read(self, count: int) -> bytes:
        """Exactly `count` bytes; EOFError once the host closed the stream."""
        with self._arrived:
            while len(self._received) < count:
                if self._ended:
                    raise EOFError
                self._arrived.wait()
            data = bytes(self._received[:count])
            del self._received[:count]
        return data

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), _CHUNK_BYTES):
            if self._ended:
                raise EOFError
            chunk = data[start : start + _CHUNK_BYTES]
            self._transport.send("WRTE", self.local, self.remote, chunk)
            self._acknowledged.acquire()


class Transport:
    """One connection from an adb server.

    Args:
        serve: runs a service, given its stream and its name ("shell,v2,raw:ls", "sync:").
        accept_key: whether a public key the device does not know may be added; called once each.
        known_keys: the public keys that are let in; added to.
    """

    def __init__(
        self,
        connection: socket.socket,
        serve: Callable[[Stream, str], None],
        accept_key: Callable[[], bool],
        known_keys: list[bytes],
        banner: str,
    ) -> None:
        self._connection, self._serve, self._accept_key = connection, serve, accept_key
        self._known_keys, self._banner = known_keys, banner
        self._sending = threading.Lock()
        self._streams: dict[int, Stream] = {}
        self._next_local = 1
        self._trusted = False
        self._token = secrets.token_bytes(20)

    def run(self) -> None:
        """Until the connection breaks."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                command, first, second, length, _, _ = _HEADER.unpack(self._receive(_HEADER.size))
                self._handle(_NAMES.get(command, ""), first, second, self._receive(length))
        for stream in list(self._streams.values()):
            stream.end()

    def send(self, command: str, first: int, second: int, data: bytes = b"") -> None:
        number = _COMMANDS[command]
        total = sum(data) & 0xFFFFFFFF
        header = _HEADER.pack(number, first, second, len(data), total, number ^ 0xFFFFFFFF)
        with self._sending:
            self._connection.sendall(header + data)

    def _receive(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            part = self._connection.recv(count - len(data))
            if not part:
                raise EOFError
            data += part
        return bytes(data)

    def _handle(self, command: str, first: int, second: int, data: bytes) -> None:
        if command == "CNXN":
            self._challenge()
        elif command == "AUTH":
            self._authenticate(first, data)
        elif self._trusted and command == "OPEN":
            self._open(first, data.rstrip(b"\0").decode())
        elif self._trusted and (stream := self._streams.get(second)) is not None:
            if command == "WRTE":
                stream.feed(data)
                self.send("OKAY", second, first)
            elif command == "OKAY":
                stream.acknowledge()
            elif command == "CLSE":
                self._close(stream)

    def _challenge(self) -> None:
        self._token = secrets.token_bytes(20)
        self.send("AUTH", _TOKEN, 0, self._token)

    def _authenticate(self, kind: int, data: bytes) -> None:
        if kind == _SIGNATURE and any(_signed(key, self._token, data) for key in self._known_keys):
            self._welcome()
        elif kind == _SIGNATURE:
            self._challenge()
        elif kind == _PUBLIC_KEY and self._accept_key():
            self._known_keys.append(data.rstrip(b"\0"))
            self._welcome()

    def _welcome(self) -> None:
        self._trusted = True
        self.send("CNXN", _VERSION, _MAX_PAYLOAD, self._banner.encode())

    def _open(self, remote: int, service: str) -> None:
        stream = Stream(self, self._next_local, remote)
        self._next_local += 1
        self._streams[stream.local] = stream
        self.send("OKAY", stream.local, remote)
        threading.Thread(target=self._run_service, args=(stream, service), daemon=True).start()

    def _run_service(self, stream: Stream, service: str) -> None:
        with contextlib.suppress(EOFError, OSError):
            self._serve(stream, service)
        with contextlib.suppress(OSError):
            self._close(stream)

    def _close(self, stream: Stream) -> None:
        """The end of a stream, whoever began it: each side says CLSE once."""
        if self._streams.pop(stream.local, None) is not None:
            stream.end()
            self.send("CLSE", stream.local, stream.remote)


def _signed(public_key: bytes, token: bytes, signature: bytes) -> bool:
    """PKCS#1 v1.5 over the token as a SHA-1 digest, by an adb public key.

    The key is base64 of: words of the modulus and an inverse (4 bytes each), the modulus (256,
    little-endian), R squared (256), the exponent (4).
    """
    raw = base64.b64decode(public_key.split()[0])
    modulus = int.from_bytes(raw[8 : 8 + _MODULUS_BYTES], "little")
    exponent = int.from_bytes(raw[-4:], "little")
    key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    try:
        key.verify(signature, token, padding.PKCS1v15(), Prehashed(hashes.SHA1()))
    except InvalidSignature:
        return False
    return True
