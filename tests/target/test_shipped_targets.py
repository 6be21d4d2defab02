"""Every target that ships: what it must say, and that no name means two of them."""

from __future__ import annotations

import datetime
import fnmatch

import pytest

from edgecompress.paths import shipped
from edgecompress.target import DeviceProfile, load_target, target_names
from edgecompress.target.agreement import agreement, board_faults
from edgecompress.target.editor_schema import SCHEMA_LINE
from edgecompress.target.files import Entry, read_file
from edgecompress.target.folders import plain

FILES = sorted(shipped("targets").glob("*.toml"))
ENTRIES = [entry for path in FILES for entry in read_file(path) if not entry.is_family]
CHIPS = [entry for entry in ENTRIES if entry.own.get("family")]


def named(entries: list[Entry]) -> list[pytest.param]:
    return [pytest.param(entry, id=entry.name) for entry in entries]


def test_there_are_as_many_as_promised() -> None:
    assert len(CHIPS) >= 60
    assert len({entry.own["family"] for entry in CHIPS}) >= 12
    assert {entry.name for entry in ENTRIES} <= set(target_names())


def test_no_name_is_described_twice() -> None:
    names = [plain(entry.name) for entry in ENTRIES]
    assert len(set(names)) == len(names)


def test_no_alias_or_board_means_two_targets() -> None:
    words = [(plain(word), entry.name) for entry in ENTRIES for word in entry.words()]
    exact: dict[str, str] = {}
    for word, name in words:
        assert exact.setdefault(word, name) == name, word
    for word, name in words:
        others = [entry.name for entry in ENTRIES if entry.name != name]
        assert not fnmatch.filter(map(plain, others), word), word
        assert not [other for other, owner in words if owner != name
                    and "*" not in other and fnmatch.fnmatchcase(other, word)], word  # fmt: skip


@pytest.mark.parametrize("entry", named(ENTRIES))
def test_a_shipped_target_is_whole(entry: Entry) -> None:
    profile = load_target(entry.name)
    assert profile.name == entry.name
    assert profile.source
    assert datetime.date.fromisoformat(profile.date)
    assert not profile.unconfirmed, "a value nobody looked up does not ship"
    assert not board_faults(profile)
    assert DeviceProfile.from_json(profile.to_json()) == profile
    for word in entry.words():
        asked = word.replace("?", "z").replace("*", "")
        assert load_target(asked.upper()).name == entry.name


@pytest.mark.parametrize("entry", named(CHIPS))
def test_a_chip_names_its_own_facts(entry: Entry) -> None:
    """Memory, clock and source are written for the chip, not handed down by the generic core."""
    by_name = {other.name: other for other in CHIPS}
    written = [entry]
    while written[-1].inherits in by_name:
        written.append(by_name[written[-1].inherits])
    assert "source" in entry.own
    assert any("clock_hz" in each.own.get("core", {}) for each in written)
    profile = load_target(entry.name)
    if profile.kind == "mcu":
        assert any("regions" in each.own for each in written)
        assert profile.qemu is None or not profile.qemu.machine, "QEMU has no such board"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_file_names_the_schema_for_editors(path: object) -> None:
    assert path.read_text(encoding="utf-8").startswith(SCHEMA_LINE + "\n")  # type: ignore[attr-defined]


def test_pyocd_agrees_or_the_profile_says_why_not() -> None:
    pytest.importorskip("pyocd")
    pytest.importorskip("defusedxml")
    seen = {entry.name: agreement(load_target(entry.name)) for entry in CHIPS}
    assert not {name: one.detail for name, one in seen.items() if one.state == "differs"}
    assert sum(one.state == "agrees" for one in seen.values()) >= 15
    assert sum(one.state == "explained" for one in seen.values()) >= 10


def test_a_chip_without_a_port_says_so() -> None:
    assert not load_target("stm32f103c8").has_firmware
    assert not load_target("cortex-m4").has_firmware
    assert load_target("nrf52840").has_firmware
    assert load_target("stm32h743zi").has_firmware
    assert load_target("x86-64").has_firmware


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("STM32H743ZI", "stm32h743zi"),
        ("stm32h743zitx", "stm32h743zi"),
        ("STM32H743ZIT6", "stm32h743zi"),
        ("Nucleo-H743ZI", "stm32h743zi"),
        ("nucleo_h743zi2", "stm32h743zi"),
        ("Arduino Nano 33 BLE", "arduino-nano-33-ble"),
        ("nRF52840-QIAA", "nrf52840"),
        ("ATSAMD21G18A", "samd21g18a"),
        ("raspberry-pi-pico", "rp2040"),
    ],
)
def test_a_part_number_or_board_is_answered_exactly(asked: str, name: str) -> None:
    assert load_target(asked).name == name
