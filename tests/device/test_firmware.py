"""The bytes in flash against the image's file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_image as tiny

from edgecompress.device.firmware import check_flash, programmed_bytes
from edgecompress.device.harness import open_device
from edgecompress.device.ports.virtual import VirtualPort
from edgecompress.device.protocol import Client
from edgecompress.errors import BadInput, ProtocolError
from edgecompress.target.registry import load_target

TinyImage = Callable[..., Path]
HASH = tiny.MODEL_HASH.encode()


@pytest.mark.parametrize("target", ["cortex-m0plus", "cortex-m4", "rv32imc"])
def test_one_other_byte_in_flash_is_found(tiny_image: TinyImage, target: str) -> None:
    profile, elf = load_target(target), tiny_image(target) / "firmware.elf"
    port = VirtualPort(elf, profile)
    try:
        client = Client(port)
        client.synchronize()
        check_flash(client, elf, profile)
        start, data = next(part for part in programmed_bytes(elf) if HASH in part[1])
        # Nothing that is executed, and of the text only what nobody asks for here.
        port.board.engine.mem_write(start + data.index(HASH) + 20, b"~")
        with pytest.raises(ProtocolError, match=rf"holds other bytes .* {start:#010x}"):
            check_flash(client, elf, profile)
    finally:
        port.close()


def test_a_session_has_compared_the_flash(
    tiny_image: TinyImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    original = Client.flash_matches

    def spy(client: Client, region: str, offset: int, data: bytes) -> bool:
        asked.append(len(data))
        return original(client, region, offset, data)

    monkeypatch.setattr(Client, "flash_matches", spy)
    folder = tiny_image("cortex-m4")
    with open_device(folder, load_target("cortex-m4")):
        assert sum(asked) == sum(len(data) for _, data in programmed_bytes(folder / "firmware.elf"))


def test_what_is_no_image_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "firmware.elf").write_bytes(b"not an image")
    with pytest.raises(BadInput, match="not an ELF image"):
        programmed_bytes(tmp_path / "firmware.elf")
