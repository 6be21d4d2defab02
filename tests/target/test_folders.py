"""Where targets are looked for, which one wins, and what one bad file may not do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgecompress.errors import InvalidTarget, UnknownTarget
from edgecompress.target import load_target, target_names
from edgecompress.target.files import read_file
from edgecompress.target.folders import VARIABLE, build_index, target_folders
from edgecompress.target.registry import list_targets, place_of

FAMILY = """
family = "house"
inherits = "cortex-m4"
aliases = ["hs*"]
source = "this test"
date = "2026-11-22"

[core]
clock_hz = 10_000_000

[[variants]]
name = "hs1"
aliases = ["HS1-*"]
boards = ["House Board"]
description = "The small one"
regions = [
    { name = "FLASH", kind = "flash", origin = 0, size = "256K", banks = ["128K", "128K"] },
    { name = "RAM", kind = "ram", origin = 0x20000000, size = "64K" },
]

[[variants]]
name = "hs2"
inherits = "hs1"
description = "The fast one"
core = { clock_hz = 20_000_000 }
"""


MINE = 'inherits = "cortex-m4"\nname = "mine"\n[core]\n'


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and no folders of the user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path


def written(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_variant_is_laid_over_its_family_and_that_over_its_core(home: Path) -> None:
    written(home / "targets", "house.toml", FAMILY)
    small, fast = load_target("hs1"), load_target("hs2")
    assert (small.core.clock_hz, fast.core.clock_hz) == (10_000_000, 20_000_000)
    assert small.core.isa == load_target("cortex-m4").core.isa
    assert small.family == fast.family == "house"
    assert fast.regions == small.regions
    assert small.regions[0].banks == (128 << 10, 128 << 10)
    assert (fast.aliases, fast.boards) == ((), ()), "one target's names are not another's"


def test_part_numbers_and_boards_find_a_users_target(home: Path) -> None:
    written(home / "targets", "house.toml", FAMILY)
    for asked in ("HS1", "hs1-abc", "house board", "House_Board", "HOUSE-BOARD"):
        assert load_target(asked).name == "hs1"


def test_a_family_file_by_path_names_its_variant(home: Path) -> None:
    path = written(home, "house.toml", FAMILY)
    assert load_target(f"{path}:hs2").name == "hs2"
    with pytest.raises(UnknownTarget, match="describes 2 targets: hs1, hs2"):
        load_target(str(path))
    with pytest.raises(UnknownTarget, match="describes no 'hs3'"):
        load_target(f"{path}:hs3")


def test_a_familys_name_is_not_a_target_but_can_be_inherited_from(home: Path) -> None:
    written(home / "targets", "house.toml", FAMILY)
    with pytest.raises(UnknownTarget, match="is a family of targets") as caught:
        load_target("house")
    assert "hs1, hs2" in str(caught.value.next_step)
    mine = 'inherits = "house"\nname = "mine"\ndescription = "d"\n'
    assert load_target(str(written(home, "mine.toml", mine))).core.clock_hz == 10_000_000


def test_folders_come_in_order_and_the_first_wins(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = home / "one", home / "two"
    for folder, clock_hz in ((one, 1_000_000), (two, 2_000_000)):
        written(folder, "mine.toml", f"{MINE}clock_hz = {clock_hz}\n")
    absent = home / "absent"
    monkeypatch.setenv(VARIABLE, os.pathsep.join(map(str, (absent, one, two, one))))
    assert [folder.label for folder in target_folders()] == [str(one), str(two), "shipped"]
    assert load_target("mine").core.clock_hz == 1_000_000
    written(home / "targets", "mine.toml", f"{MINE}clock_hz = 3_000_000\n")
    assert load_target("mine").core.clock_hz == 3_000_000
    assert target_names().count("mine") == 1


def test_shadowing_a_shipped_target_is_seen_and_may_inherit_from_it(home: Path) -> None:
    text = 'inherits = "stm32h743zi"\nname = "stm32h743zi"\ndescription = "Slower"\n'
    written(home / "targets", "mine.toml", text + "[core]\nclock_hz = 400_000_000\n")
    profile = load_target("stm32h743zi")
    assert (profile.description, profile.core.clock_hz) == ("Slower", 400_000_000)
    assert profile.regions[0].size == 2 << 20
    listed, faults = list_targets()
    (found,) = [found for found, profile in listed if profile.name == "stm32h743zi"]
    assert found.folder.label == "./targets"
    assert found.shadows == ("shipped: stm32h7.toml",)
    assert not faults
    assert place_of("stm32h743zi").endswith("targets/mine.toml")
    assert place_of("stm32h743vi").endswith("stm32h7.toml:stm32h743vi")


def test_one_broken_file_leaves_the_others(home: Path) -> None:
    written(home / "targets", "house.toml", FAMILY)
    written(home / "targets", "broken.toml", "name = \n")
    written(home / "targets", "wrong.toml", 'inherits = "cortex-m4"\nclok = 1\n')
    assert load_target("hs1").name == "hs1"
    assert load_target("cortex-m7").name == "cortex-m7"
    with pytest.raises(InvalidTarget, match=r"broken\.toml is not TOML"):
        load_target("broken")
    with pytest.raises(InvalidTarget, match="'clok' is not a key"):
        load_target("wrong")
    faults = list_targets()[1]
    assert {path.name for path in faults} == {"broken.toml", "wrong.toml"}


def test_a_name_described_twice_is_refused_naming_both_files(home: Path) -> None:
    written(home / "targets", "house.toml", FAMILY)
    written(home / "targets", "again.toml", 'inherits = "cortex-m4"\nname = "HS1"\n')
    with pytest.raises(InvalidTarget, match=r"again\.toml and in .*house\.toml"):
        load_target("hs1")
    assert load_target("cortex-m4").name == "cortex-m4"


def test_an_alias_of_two_targets_is_refused_naming_both(home: Path) -> None:
    text = FAMILY.replace('name = "hs2"', 'name = "hs2"\nboards = ["house board"]')
    written(home / "targets", "house.toml", text)
    with pytest.raises(InvalidTarget, match=r"alias of 'hs1' .* and 'hs2'"):
        load_target("house-board")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[[variants]]\nname = 'a'", "family names none"),
        ("family = 'f'\nvariants = 3", "not a list of tables"),
        ("family = 'f'\nvariants = []", "not a list of tables"),
        ("family = 'f'\n[[variants]]\ndescription = 'x'", "variants.0 has no usable name"),
        ("family = 'f'\n[[variants]]\nname = '../a'", "variants.0 has no usable name"),
        ("family = 'f'\n[[variants]]\nname = 'a'\n[[variants]]\nname = 'a'", "named 'a'"),
        ("family = 'f'\nname = 'g'\n[[variants]]\nname = 'a'", "a name of its own"),
        ("inherits = ['a']", "write one target's name"),
        ("family = 'f'\n[[variants]]\nname = 'a'\ninherits = 1", "inherits is 1"),
    ],
)
def test_a_family_file_says_what_is_wrong_with_it(home: Path, text: str, fault: str) -> None:
    path = written(home, "family.toml", text)
    with pytest.raises(InvalidTarget, match=fault):
        read_file(path)


def test_variants_that_inherit_in_a_circle(home: Path) -> None:
    text = "family = 'f'\n[[variants]]\nname = 'a'\ninherits = 'b'\n"
    written(home / "targets", "f.toml", text + "[[variants]]\nname = 'b'\ninherits = 'a'\n")
    with pytest.raises(InvalidTarget, match="in a circle: a -> b -> a"):
        load_target("a")


def test_a_huge_file_is_not_read(home: Path) -> None:
    path = home / "targets" / "huge.toml"
    path.parent.mkdir()
    with path.open("wb") as file:
        file.truncate(5 << 20)
    assert "at most" in build_index().faults[Path("targets/huge.toml")]


def test_banks_must_fill_their_region(home: Path) -> None:
    path = written(home, "house.toml", FAMILY.replace('["128K", "128K"]', '["128K", "64K"]'))
    with pytest.raises(InvalidTarget, match=r"hold 192\.0 KiB together but size is 256\.0 KiB"):
        load_target(f"{path}:hs1")


def test_flashing_tools_need_their_name_of_the_chip(home: Path) -> None:
    text = 'inherits = "cortex-m4"\nname = "m"\n[flashing]\ntool = "pyocd"\n'
    path = written(home, "m.toml", text)
    with pytest.raises(InvalidTarget, match="flashing names pyocd but pyocd_target is empty"):
        load_target(str(path))
