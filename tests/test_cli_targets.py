from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgecompress.cli import main
from edgecompress.target import DeviceProfile, load_target, target_names
from edgecompress.target.folders import VARIABLE

Capture = pytest.CaptureFixture[str]


def copied(folder: Path, file_name: str, *change: str) -> str:
    """A shipped target's whole TOML under another file name, with one text replaced."""
    from edgecompress.paths import shipped

    text = (shipped("targets") / "cortex-m7.toml").read_text(encoding="utf-8")
    if change:
        assert change[0] in text
        text = text.replace(*change, 1)
    (folder / file_name).write_text(text, encoding="utf-8")
    return str(folder / file_name)


@pytest.mark.parametrize("arguments", [["targets"], ["targets", "list"]])
def test_list_names_every_target(capsys: Capture, arguments: list[str]) -> None:
    assert main(arguments) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert set(target_names()) <= set(rows)
    assert "1024 KiB" in rows["cortex-m7"]
    assert "320 KiB" in rows["cortex-m7"]
    assert "virtual board" in rows["cortex-m7"]
    assert "compiled only" in rows["cuda-sm_90"]


def test_list_as_json_holds_whole_profiles(capsys: Capture) -> None:
    assert main(["targets", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["targets"]
    assert [DeviceProfile.model_validate(one).name for one in listed] == target_names()


def test_show_prints_core_memory_and_source(capsys: Capture) -> None:
    assert main(["targets", "show", "cortex-m7"]) == 0
    out = capsys.readouterr().out
    assert "armv7e-m, FPU double, DSP" in out
    assert "0x20000000 to 0x2004ffff" in out
    assert load_target("cortex-m7").source[:30] in out


@pytest.mark.parametrize("name", ["cortex-m7", "stm32h743zi", "raspberry-pi-5", "cuda-sm_90"])
def test_show_takes_a_target_both_ways(capsys: Capture, name: str) -> None:
    assert main(["targets", "show", name]) == 0
    assert capsys.readouterr().out.startswith(name)
    assert main(["targets", "show", name, "--json"]) == 0
    assert DeviceProfile.from_json(capsys.readouterr().out) == load_target(name)


def test_check_passes_every_shipped_target(capsys: Capture) -> None:
    assert main(["targets", "check"]) == 0
    assert f"{len(target_names())} targets, all valid" in capsys.readouterr().out


def test_check_names_each_fault_and_exits_2(tmp_path: Path, capsys: Capture) -> None:
    good = copied(tmp_path, "cortex-m7.toml")
    unknown = copied(tmp_path, "unknown.toml", "clock_hz", "clok_hz")
    misnamed = copied(tmp_path, "misnamed.toml")
    assert main(["targets", "check", good, unknown, misnamed, "--json"]) == 2
    rows = json.loads(capsys.readouterr().out)["checked"]
    assert [row["ok"] for row in rows] == [True, False, False]
    assert "'core.clok_hz' is not a key of the target schema" in rows[1]["error"]
    assert "'misnamed'" in rows[2]["error"]
    assert "'cortex-m7'" in rows[2]["error"]
    assert main(["targets", "check", good, unknown]) == 2
    assert "2 targets, 1 wrong" in capsys.readouterr().out


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and no folders of the user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path


def test_list_groups_by_family_and_says_what_the_chip_takes(capsys: Capture) -> None:
    assert main(["targets", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    headings = [line.strip("[] ") for line in lines if line.startswith("[")]
    assert headings == ["generic", *sorted(headings[1:])]
    assert {"stm32h7", "nrf52", "imxrt", "rp2"} <= set(headings)
    rows = {line.split()[0]: line for line in lines if line.strip()}
    assert "library" in rows["stm32f103c8"]
    assert " stm32 " in rows["stm32h743zi"]
    assert "cortex-m0plus" in rows["rp2040"]
    assert "executable" in rows["raspberry-pi-zero-2-w"]


@pytest.mark.parametrize(
    ("options", "inside", "outside"),
    [
        (["--family", "nrf52"], "nrf52840", "nrf5340"),
        (["--family", "generic"], "cortex-m7", "nrf52840"),
        (["--core", "cortex-m33"], "stm32u585ai", "stm32h743zi"),
        (["--min-ram", "1M"], "stm32u5a5zj", "stm32u585ai"),
        (["--min-flash", "4M", "--core", "cortex-m7"], "mimxrt1062", "teensy-4.0"),
    ],
)
def test_list_filters(capsys: Capture, options: list[str], inside: str, outside: str) -> None:
    assert main(["targets", "list", *options, "--json"]) == 0
    names = [one["name"] for one in json.loads(capsys.readouterr().out)["targets"]]
    assert inside in names
    assert outside not in names


def test_a_filter_that_leaves_nothing_names_the_families(capsys: Capture) -> None:
    assert main(["targets", "list", "--family", "z80"]) == 2
    err = capsys.readouterr().err
    assert "No target is like that" in err
    assert "stm32h7" in err
    assert main(["targets", "list", "--min-ram", "much"]) == 2
    assert "'much' is not a size" in capsys.readouterr().err


def test_a_users_folder_is_listed_first_and_its_broken_file_named(
    capsys: Capture, home: Path
) -> None:
    folder = home / "targets"
    folder.mkdir()
    (folder / "mine.toml").write_text('inherits = "cortex-m4"\nname = "cortex-m7"\n')
    (folder / "bad.toml").write_text("name = ")
    assert main(["targets", "list", "--family", "generic"]) == 0
    told = capsys.readouterr()
    assert "cortex-m7: from ./targets, hides shipped: cortex-m7.toml" in told.out
    assert "cortex-m4: from" not in told.out
    assert "Left out targets/bad.toml" in told.err
    assert main(["targets", "show", "cortex-m7"]) == 0
    assert "targets/mine.toml" in capsys.readouterr().out


def test_show_takes_part_numbers_and_says_what_is_not_there(capsys: Capture) -> None:
    assert main(["targets", "show", "STM32F103C8T6"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("stm32f103c8:")
    assert "none on the real chip" in out
    assert main(["targets", "show", "stm32h743bi"]) == 2
    assert "Nearest: stm32h743zi" in capsys.readouterr().err


def test_check_compares_with_pyocd_and_can_be_told_not_to(capsys: Capture, home: Path) -> None:
    pytest.importorskip("pyocd")
    text = 'inherits = "nrf52840"\nname = "wrong"\ndescription = "d"\n[[regions]]\nname = "FLASH"\n'
    text += 'kind = "flash"\norigin = 0\nsize = "2M"\n[[regions]]\nname = "RAM"\nkind = "ram"\n'
    (home / "wrong.toml").write_text(text + 'origin = 0x20000000\nsize = "256K"\n')
    assert main(["targets", "check", "wrong.toml"]) == 2
    assert "pyOCD's flash 1.00 MiB" in " ".join(capsys.readouterr().out.split())
    assert main(["targets", "check", "wrong.toml", "--no-pyocd"]) == 0
    assert "all valid" in capsys.readouterr().out
    assert main(["targets", "check", "nrf52840", "nrf5340", "--json"]) == 0
    states = [row["pyocd"]["state"] for row in json.loads(capsys.readouterr().out)["checked"]]
    assert states == ["agrees", "not compared"]


def test_check_takes_a_family_file_apart_and_minds_the_virtual_board(
    capsys: Capture, home: Path
) -> None:
    text = 'family = "f"\ninherits = "cortex-m4"\nsource = "s"\ndescription = "d"\n'
    text += '[[variants]]\nname = "f1"\n[[variants]]\nname = "f2"\nregions = ['
    text += '{ name = "F", kind = "flash", origin = 0, size = "64K" },'
    text += '{ name = "R", kind = "ram", origin = 0x20000000, size = 65000 }]\n'
    text += 'unconfirmed = ["core.clok"]\n'
    (home / "f.toml").write_text(text)
    assert main(["targets", "check", "f.toml", "--json"]) == 2
    one, two = json.loads(capsys.readouterr().out)["checked"]
    assert (one["name"], one["ok"]) == ("f.toml:f1", True)
    assert "65000 bytes at 0x20000000) is not whole pages" in two["error"]


def test_new_from_pyocd_writes_a_target_that_passes_its_check(capsys: Capture, home: Path) -> None:
    pytest.importorskip("pyocd")
    pytest.importorskip("defusedxml")
    assert main(["targets", "new", "--from-pyocd", "stm32h743zi", "-o", "mine/board.toml"]) == 0
    said = capsys.readouterr().out
    assert "look up the rated clock" in said
    assert "--target mine/board.toml" in said
    assert load_target("mine/board.toml").name == "board"
    assert main(["targets", "check", "mine/board.toml"]) == 0
    again = ["targets", "new", "--from-pyocd", "nrf52840", "-o", "mine/board.toml"]
    assert main(again) == 2
    assert "is there already" in capsys.readouterr().err
    assert main([*again, "--force"]) == 0
    assert load_target("mine/board.toml").core.name == "cortex-m4"


def test_new_says_what_is_described_already(capsys: Capture, home: Path) -> None:
    pytest.importorskip("pyocd")
    pytest.importorskip("defusedxml")
    assert main(["targets", "new", "--from-pyocd", "stm32h743zi"]) == 0
    assert "'stm32h743zi' describes this part already" in capsys.readouterr().out
    assert main(["targets", "new", "--from-pyocd", "stm32h743bi"]) == 0
    out = capsys.readouterr().out
    assert "Of its family these have firmware: stm32h723zg, stm32h743zi" in out
    assert main(["targets", "new", "--from-pyocd", "max32630"]) == 0
    assert "Of its family" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "Give one of --from-pyocd PART and --from-pack FILE"),
        (["--from-pyocd", "a", "--from-pack", "b"], "Give one of"),
        (["--from-pyocd", "stm32h7zz"], "pyOCD knows no target 'stm32h7zz'"),
        (["--from-pack", "absent.pack"], "There is no file absent.pack"),
        (["--from-pyocd", "rp2040", "--core", "cortex-a5"], "no generic target"),
    ],
)
def test_new_says_what_it_lacks(capsys: Capture, home: Path, options: list[str], said: str) -> None:
    pytest.importorskip("pyocd")
    pytest.importorskip("defusedxml")
    assert main(["targets", "new", *options]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not list(home.iterdir())


def test_schema_is_printed_and_written(capsys: Capture, home: Path) -> None:
    assert main(["targets", "schema"]) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed)["title"] == "edgecompress target"
    assert main(["targets", "schema", "-o", "target.schema.json"]) == 0
    assert (home / "target.schema.json").read_text(encoding="utf-8") == printed
    assert main(["targets", "schema", "-o", "target.schema.json"]) == 2
    assert "is there already" in capsys.readouterr().err
