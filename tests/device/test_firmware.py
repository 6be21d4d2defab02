"""The bytes in flash against the image's file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tiny_image as tiny

from edgecompress.device.firmware import check_flash, programmed_bytes
from edgecompress.device.harness import open_device
from edgecompress.device.ports.virtual import VirtualPort
from edgecompress.device.protocol import Client
from edgecompress.errors import BadInput, ProtocolError
from edgecompress.target.registry import load_target
from edgecompress.target.schema import DeviceProfile

TinyImage = Callable[..., Path]
HASH = tiny.MODEL_HASH.encode()


@pytest.mark.parametrize("target", ["cortex-m0plus", "cortex-m4", "rv32imc"])
def test_one_other_byte_in_flash_is_found(
    tiny_image: TinyImage, tmp_path: Path, target: str
) -> None:
    profile, elf = load_target(target), tiny_image(target) / "firmware.elf"
    with _running(elf, profile) as client:
        check_flash(client, elf, profile)
    start = next(start for start, data in programmed_bytes(elf) if HASH in data)
    file = bytearray(elf.read_bytes())
    # Nothing that is executed, and of the text only what nobody asks for here.
    file[file.index(HASH) + 20] = ord("~")
    changed = tmp_path / "firmware.elf"
    changed.write_bytes(file)
    with (
        _running(changed, profile) as client,
        pytest.raises(ProtocolError, match=rf"holds other bytes .* {start:#010x}"),
    ):
        check_flash(client, elf, profile)


@contextmanager
def _running(elf: Path, profile: DeviceProfile) -> Iterator[Client]:
    port = VirtualPort(elf, profile)
    try:
        client = Client(port)
        client.synchronize()
        yield client
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
