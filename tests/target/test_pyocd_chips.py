"""Facts out of pyOCD and out of packs, hostile ones too. No probe, no network."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

pytest.importorskip("pyocd")
pytest.importorskip("defusedxml")

from pack_samples import DESCRIPTION, make_pack

from edgecompress.errors import BadInput, UnknownTarget
from edgecompress.target.pyocd_chips import (
    Memory,
    builtin_chip,
    builtin_memories,
    builtin_name,
    merged,
    pack_chip,
)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("nrf52840", "nrf52840"),
        ("STM32H743ZI", "stm32h743xx"),
        ("stm32h743zit6", "stm32h743xx"),
        ("stm32f412zg", "stm32f412xg"),
        ("stm32l031k6", "stm32l031x6"),
        ("stm32f412zz", None),
        ("stm32", None),
        ("zzz", None),
    ],
)
def test_a_part_number_finds_pyocds_own_name(part: str, name: str | None) -> None:
    assert builtin_name(part) == name


def test_a_builtin_chip_brings_memories_and_its_core_where_pyocd_has_it() -> None:
    chip = builtin_chip("nRF52840")
    assert (chip.core, chip.fpu, chip.pyocd_target) == ("cortex-m4", True, "nrf52840")
    assert Memory("flash", "flash", 0, 1 << 20, boot=True) in chip.memories
    assert builtin_chip("stm32h743zi").core is None
    assert builtin_memories("no_such_chip") is None


def test_a_secure_alias_is_not_more_memory() -> None:
    rams = [memory for memory in builtin_chip("lpc55s69").memories if memory.kind == "ram"]
    assert sum(memory.size for memory in rams) == (272 + 32) << 10


def test_an_unknown_part_names_neighbours_and_the_other_way() -> None:
    with pytest.raises(UnknownTarget, match="no target 'stm32h7zz'") as caught:
        builtin_chip("stm32h7zz")
    assert "stm32h743xx" in str(caught.value.next_step)
    assert "--from-pack" in str(caught.value.next_step)


def test_pyocd_looks_at_nothing_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pyOCD runs pyocd_user.py of its project folder when it opens a session with a probe."""
    (tmp_path / "pyocd_user.py").write_text("open('ran', 'w').close()\n")
    (tmp_path / "pyocd.yaml").write_text("user_script: pyocd_user.py\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYOCD_PROJECT_DIR", str(tmp_path.parent))
    assert builtin_chip("nrf52840").memories
    assert not (tmp_path / "ran").exists()
    assert Path.cwd() == tmp_path


def test_a_pack_brings_core_fpu_clock_and_memories(tmp_path: Path) -> None:
    chip = pack_chip(make_pack(tmp_path), "hs100")
    assert (chip.part, chip.vendor, chip.pack) == ("hs100", "Test", "Test.House_DFP.1.0.0.pack")
    assert (chip.core, chip.fpu, chip.clock_hz) == ("cortex-m4", "single", 96_000_000)
    flash, *rams = [memory for memory, _ in merged(chip.memories)]
    assert (flash.kind, flash.origin, flash.size, flash.boot) == ("flash", 0x4000, 240 << 10, True)
    assert [(ram.origin, ram.size) for ram in rams] == [(0x10000000, 1024), (0x20000000, 48 << 10)]
    assert pack_chip(tmp_path / chip.pack, "HS200XYZ-ordering").part == "hs200"
    assert pack_chip(tmp_path / chip.pack, "hs200").clock_hz is None


def test_neighbours_become_one_memory_with_banks() -> None:
    one, two = Memory("ram", "a", 0, 16), Memory("ram", "b", 16, 8)
    apart, other = Memory("ram", "c", 32, 8), Memory("flash", "d", 40, 8)
    again = Memory("ram", "e", 0, 16)
    (d, _), (ab, banks), (c, none) = merged([two, apart, one, again, other])
    assert (ab.origin, ab.size, banks) == (0, 24, (16, 8))
    assert (c, none, d) == (apart, (), other)


def test_a_pack_of_several_devices_wants_one_named(tmp_path: Path) -> None:
    pack = make_pack(tmp_path)
    with pytest.raises(UnknownTarget, match="describes 2 devices") as caught:
        pack_chip(pack, None)
    assert "HS100, HS200" in str(caught.value.next_step)
    with pytest.raises(UnknownTarget, match="describes no device 'hs999'"):
        pack_chip(pack, "hs999")


_ENTITIES = """<?xml version="1.0"?>
<!DOCTYPE p [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<package><devices><family Dfamily="&b;" Dvendor="x"/></devices></package>"""
_EXTERNAL = """<?xml version="1.0"?>
<!DOCTYPE p [<!ENTITY a SYSTEM "file:///etc/passwd">]>
<package><vendor>&a;</vendor></package>"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (_ENTITIES, "defines entities or a DTD"),
        (_EXTERNAL, "defines entities or a DTD"),
        ("<package><devices>", "cannot be read"),
        ("not XML", "cannot be read"),
        ("<package/>", "describes no devices"),
        (DESCRIPTION.replace('Dname="HS100"', ""), "cannot be read|describes no device"),
    ],
)
def test_a_spoilt_description_is_refused_in_words(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        pack_chip(make_pack(tmp_path, text), "hs100")
    assert "root:" not in str(caught.value)


def test_a_description_that_unpacks_to_too_much_is_not_unpacked(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="unpacks to 65 MiB"):
        pack_chip(make_pack(tmp_path, DESCRIPTION + " " * (65 << 20)), "hs100")


def test_a_flash_algorithm_that_unpacks_to_too_much_is_not_unpacked(tmp_path: Path) -> None:
    named = r'<algorithm name="Flash\big.FLM" start="0x4000" size="0x3C000" default="1"/>'
    text = DESCRIPTION.replace("</device>", f"{named}</device>", 1)
    pack = make_pack(tmp_path, text, others={"Flash/big.FLM": bytes(17 << 20)})
    assert pack.stat().st_size < 1 << 20
    with pytest.raises(BadInput, match=r"Flash/big\.FLM unpacks to 17 MiB"):
        pack_chip(pack, "hs100")


def test_what_is_no_pack_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="There is no file"):
        pack_chip(tmp_path / "absent.pack", None)
    (tmp_path / "text.pack").write_text("hello")
    with pytest.raises(BadInput, match="is not a CMSIS-Pack"):
        pack_chip(tmp_path / "text.pack", None)
    with zipfile.ZipFile(tmp_path / "empty.pack", "w") as archive:
        archive.writestr("readme", "hello")
    with pytest.raises(BadInput, match=r"has no \.pdsc file"):
        pack_chip(tmp_path / "empty.pack", None)
    pack = make_pack(tmp_path)
    pack.write_bytes(pack.read_bytes()[:300])
    with pytest.raises(BadInput, match="is not a CMSIS-Pack"):
        pack_chip(pack, "hs100")
