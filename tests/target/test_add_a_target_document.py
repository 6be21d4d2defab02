"""docs/add-a-target.md, its `targets` commands run one after another in an empty folder."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("pyocd")
pytest.importorskip("defusedxml")

from pack_samples import DESCRIPTION, make_pack

from edgecompress.cli import main
from edgecompress.target import load_target
from edgecompress.target.folders import VARIABLE

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "add-a-target.md"


def test_a_newcomer_can_type_what_the_document_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    for example in re.findall(r"^```toml\n(.*?)^```", text, re.M | re.S):
        name = tomllib.loads(example)["name"]
        (tmp_path / f"{name}.toml").write_text(example, encoding="utf-8")
    (pack,) = re.findall(r"--from-pack (\S+)", text)
    (device,) = re.findall(r"--device (\S+)", text)
    make_pack(tmp_path, DESCRIPTION.replace("HS100", f"{device}Tx"), name=pack)
    commands = re.findall(r"^edgecompress (targets .+)$", text, re.M)
    assert len(commands) >= 8
    for command in commands:
        assert main(shlex.split(command)) == 0, command + capsys.readouterr().err
    assert load_target("stm32h743bi.toml").core.name == "cortex-m7"
    assert load_target(f"{device.lower()}tx.toml").core.clock_hz == 96_000_000
    assert load_target("my-f446.toml").console.settings["uart"] == "USART3"
    assert (tmp_path / "target.schema.json").is_file()


def test_the_document_names_the_ports_there_are() -> None:
    from edgecompress.target.port_settings import port_names

    text = DOCUMENT.read_text(encoding="utf-8")
    words = {"stm32": "STM32", "nrf": "nRF52", "rp2": "RP2040", "esp32c3": "ESP32-C3"}
    for port in set(port_names()) - {"cmsdk", "posix"}:
        assert words[port] in text, port
