from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgecompress.cli import main
from edgecompress.target import DeviceProfile, load_target, target_names

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
