"""A debug probe for tests: pyOCD's own session, board, memory map and loader over a dictionary.

Everything below pyOCD's Flash (the algorithm that runs on the chip) and its memory reads is here.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from pyocd.board.board import Board
from pyocd.core.exceptions import TransferFaultError
from pyocd.core.helpers import ConnectHelper
from pyocd.core.session import Session
from pyocd.flash.flash import Flash


class Chip:
    """What is on the probe.

    Args:
        core: the name pyOCD reads from CPUID.
        words: registers that can be read as words.
        worn: an address whose byte does not take what is written.
        on_connect: raises what connecting fails with.
    """

    def __init__(
        self,
        *,
        core: str = "Cortex-M4",
        words: dict[int, int] | None = None,
        worn: int | None = None,
        on_connect: Callable[[Session], None] = lambda _session: None,
    ) -> None:
        self.core, self.worn, self.on_connect = core, worn, on_connect
        self.words = {0x10000100: 0x52840} if words is None else words
        self.memory: dict[int, int] = {}
        self.resets = 0
        self.erased: list[int] = []

    def read(self, address: int, count: int) -> list[int]:
        return [self.memory.get(address + offset, 0xFF) for offset in range(count)]

    def read_word(self, address: int) -> int:
        if address not in self.words:
            raise TransferFaultError(address)
        return self.words[address]

    def reset(self, *_: object) -> None:
        self.resets += 1


class _Flash(Flash):
    """pyOCD's flash driver with the calls into its algorithm done in place."""

    def __init__(self, target: Any, chip: Chip, sector_bytes: int) -> None:
        super().__init__(target, None)
        self.is_valid, self.page_buffers = True, [0]
        self._chip, self._sector_bytes = chip, sector_bytes

    @property
    def is_erase_all_supported(self) -> bool:
        return False

    def init(self, *_: object, **__: object) -> None: ...

    def uninit(self) -> None: ...

    def cleanup(self) -> None: ...

    def erase_sector(self, address: int) -> None:
        self._chip.erased.append(address)
        for offset in range(self._sector_bytes):
            self._chip.memory.pop(address + offset, None)

    def program_page(self, address: int, data: Any) -> None:
        for offset, value in enumerate(data, address):
            before = self._chip.memory.get(offset, 0xFF)
            self._chip.memory[offset] = before & (0 if offset == self._chip.worn else value)


class Probe(SimpleNamespace):
    """What pyOCD's helper lists."""

    def __init__(self, unique_id: str = "0661234", description: str = "ST-LINK/V2-1") -> None:
        super().__init__(
            unique_id=unique_id, description=description, associated_board_info=None, session=None,
            is_open=False, close=lambda: None,
        )  # fmt: skip

    def create_associated_board(self) -> Board:
        return Board(self.session)


def connect(monkeypatch: pytest.MonkeyPatch, chip: Chip, *probes: Probe) -> list[Session]:
    """Makes pyOCD see these probes, `chip` on any of them; the sessions opened are listed."""
    opened: list[Session] = []

    def open_session(session: Session, *_: object, **__: object) -> None:
        opened.append(session)
        chip.on_connect(session)
        target = session.target
        target.cores[0] = SimpleNamespace(name=chip.core, node_name="core0")
        target._selected_core = 0
        for region in target.memory_map:
            if region.is_flash:
                region.flash = _Flash(target, chip, region.sector_size)
                region.flash.region = region
        target.read_memory_block8 = chip.read
        target.read32 = chip.read_word
        target.reset = chip.reset

    listed = list(probes) or [Probe()]
    monkeypatch.setattr(ConnectHelper, "get_all_connected_probes", lambda **_: listed)
    monkeypatch.setattr(Session, "open", open_session)
    monkeypatch.setattr(Session, "close", lambda _self: None)
    return opened
