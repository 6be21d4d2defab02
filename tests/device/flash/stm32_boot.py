"""An STM32's system boot loader on a pseudo-terminal: ST AN3155, USART protocol, version 3.1.

Every command is a byte and its complement; addresses and data carry an XOR checksum. Closing the
line resets the board, as an adapter does whose DTR is wired to NRST.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import operator
import os
import select
import threading
import time
import tty
from typing import Self

_ACK, _NACK = b"\x79", b"\x1f"
_SYNCHRONIZE = 0x7F
_GET, _GET_ID, _READ, _GO, _WRITE, _ERASE, _UNPROTECT = 0x00, 0x02, 0x11, 0x21, 0x31, 0x44, 0x92
_COMMANDS = (_GET, _GET_ID, _READ, _GO, _WRITE, _ERASE, _UNPROTECT)


class _LineClosed(Exception):
    """The host closed its end."""


class BootLoader:
    """A chip with its flash, as a context manager; `path` is its serial port.

    Args:
        chip_id: what Get ID answers.
        protected: readout protection: everything but Get and Get ID is refused.
        worn: offset in flash of a byte that never takes what is written; None: no such byte.
        foreign: the board runs something else, which echoes what it is sent.
    """

    def __init__(
        self,
        *,
        chip_id: int = 0x421,
        origin: int = 0x08000000,
        size: int = 512 * 1024,
        protected: bool = False,
        worn: int | None = None,
        foreign: bool = False,
    ) -> None:
        self._chip_id, self._origin, self._worn = chip_id, origin, worn
        self._protected, self._foreign = protected, foreign
        # What an earlier firmware left: programming without erasing would not verify.
        self.flash = bytearray(b"\x00" * size)
        self.started_at: int | None = None
        self._closed = False
        self._master, slave = os.openpty()
        tty.setraw(slave)
        self.path = os.ttyname(slave)
        os.close(slave)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._thread.join(5)
        os.close(self._master)

    def _run(self) -> None:
        while not self._closed:
            with contextlib.suppress(_LineClosed):
                while self._byte() != _SYNCHRONIZE:
                    pass
                self._send(_ACK)
                while True:
                    self._command()

    def _command(self) -> None:
        command, complement = self._byte(), self._byte()
        if command ^ complement != 0xFF or command not in _COMMANDS:
            self._send(_NACK)
            return
        if self._protected and command not in (_GET, _GET_ID, _UNPROTECT):
            self._send(_NACK)
            return
        self._send(_ACK)
        {
            _GET: self._get, _GET_ID: self._get_id, _READ: self._read, _GO: self._go,
            _WRITE: self._write, _ERASE: self._erase, _UNPROTECT: self._unprotect,
        }[command]()  # fmt: skip

    def _get(self) -> None:
        self._send(bytes([len(_COMMANDS), 0x31, *_COMMANDS]) + _ACK)

    def _get_id(self) -> None:
        self._send(b"\x01" + self._chip_id.to_bytes(2, "big") + _ACK)

    def _read(self) -> None:
        start = self._address()
        if start is None:
            return
        count, complement = self._byte(), self._byte()
        if count ^ complement != 0xFF:
            self._send(_NACK)
            return
        self._send(_ACK + bytes(self.flash[start : start + count + 1]))

    def _go(self) -> None:
        start = self._address()
        if start is not None:
            self.started_at = start + self._origin

    def _write(self) -> None:
        start = self._address()
        if start is None:
            return
        count = self._byte()
        data = bytes(self._byte() for _ in range(count + 1))
        if self._byte() != functools.reduce(operator.xor, data, count):
            self._send(_NACK)
            return
        for offset, value in enumerate(data, start):
            # Flash cells are cleared by programming and set by erasing only.
            self.flash[offset] &= 0x00 if offset == self._worn else value
        self._send(_ACK)

    def _erase(self) -> None:
        what = bytes(self._byte() for _ in range(3))
        if what != b"\xff\xff\x00":
            self._send(_NACK)
            return
        self.flash[:] = b"\xff" * len(self.flash)
        self._send(_ACK)

    def _unprotect(self) -> None:
        self._protected = False
        self.flash[:] = b"\xff" * len(self.flash)
        self._send(_ACK)

    def _address(self) -> int | None:
        """An offset in flash; None, and refused, where it is not in it or garbled."""
        data = bytes(self._byte() for _ in range(4))
        offset = int.from_bytes(data, "big") - self._origin
        whole = self._byte() == functools.reduce(operator.xor, data)
        if not whole or not 0 <= offset < len(self.flash):
            self._send(_NACK)
            return None
        self._send(_ACK)
        return offset

    def _byte(self) -> int:
        while not self._closed:
            if not select.select([self._master], [], [], 0.1)[0]:
                continue
            try:
                data = os.read(self._master, 1)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                # Nobody has the port open.
                time.sleep(0.01)
                raise _LineClosed from None
            if not self._foreign:
                return data[0]
            self._send(data)
        raise _LineClosed

    def _send(self, data: bytes) -> None:
        os.write(self._master, data)
