"""Measurements on disk: whole or absent, never over one another, under harmless names."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from samples import counted

from edgecompress.errors import BadInput, UnwritableOutput
from edgecompress.measuring.store import read_measurement, save
from edgecompress.record_base import Record

NOW = "2026-01-02T03:04:05.678+00:00"


def test_the_name_is_time_and_device(tmp_path: Path) -> None:
    path = save(counted(1), tmp_path, time_utc=NOW, device="virtual cortex-m7")
    assert path == tmp_path / "measurements" / "20260102T030405678-virtual-cortex-m7.json"
    assert read_measurement(path) == (path, counted(1))


@pytest.mark.parametrize(
    "device",
    ["../../etc/passwd", "a/b", "\x1b[31mred\n", "socket://h:1", "", "...", "x" * 500, "é"],
)
def test_a_device_cannot_name_a_file_elsewhere(tmp_path: Path, device: str) -> None:
    path = save(counted(1), tmp_path, time_utc=NOW, device=device)
    assert path.parent == tmp_path / "measurements"
    assert path.name.isascii()
    assert path.name.isprintable()
    assert len(path.name) < 100
    assert list(tmp_path.iterdir()) == [tmp_path / "measurements"]


def test_boards_that_finish_together_each_get_a_file(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(
            lambda count: save(counted(count), tmp_path, time_utc=NOW, device="board"),
            range(1, 25),
        ))  # fmt: skip
    assert len(set(paths)) == 24
    found = sorted(read_measurement(path)[1].instructions or 0 for path in paths)
    assert found == list(range(1, 25))
    assert len(list((tmp_path / "measurements").iterdir())) == 24


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UnwritableOutput, match="No space left"):
        save(counted(1), tmp_path, time_utc=NOW, device="board")
    assert list((tmp_path / "measurements").iterdir()) == []


def test_verifications_are_not_taken_for_measurements(tmp_path: Path) -> None:
    class Other(Record):
        text: str = "x"

    first = save(counted(1), tmp_path, time_utc=NOW, device="a")
    save(Other(), tmp_path, time_utc="2027" + NOW[4:], device="a", kind="verification")
    assert read_measurement(tmp_path)[0] == first
    assert read_measurement(tmp_path / "measurements")[0] == first


@pytest.mark.parametrize("text", ["\x1b[2J", "\x9b31m", "a\x00", "\u202egnp"])
def test_a_file_from_elsewhere_cannot_drive_the_terminal(tmp_path: Path, text: str) -> None:
    for number, changes in enumerate(({"note": text}, {"settings": {text: "on"}})):
        path = tmp_path / f"{number}.json"
        path.write_text(counted(1, **changes).to_json())
        with pytest.raises(BadInput, match="control characters"):
            read_measurement(path)
    path.write_text(counted(1, note="board 7, 21 °C\nsecond line").to_json())
    assert read_measurement(path)[1].provenance is not None
