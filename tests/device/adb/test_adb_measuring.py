"""A phone measured like any device, with what its system says of clocks and temperatures."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from adb_phone import Phone

from edgecompress import api
from edgecompress.errors import BadInput
from edgecompress.measuring.store import read_measurement
from edgecompress.report.measuring import measurement_table
from edgecompress.report.text import plain_text

MakePhone = Callable[..., Phone]


@pytest.fixture
def artifact(image: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "artifact"
    folder.mkdir()
    for name in ("image.json", "firmware"):
        shutil.copy(image.parent / name, folder / name)
    return folder


def test_a_measurement_holds_the_phones_conditions(phone: MakePhone, artifact: Path) -> None:
    device = phone()
    measured = api.profile(artifact, device="adb,cluster=big", runs=5)
    assert measured.time is not None
    assert measured.time.runs == 5
    origin = measured.provenance
    assert origin is not None
    assert origin.port == "adb"
    assert origin.device_id == device.serial
    seen = origin.conditions
    assert seen is not None
    assert seen.pinned_cluster == "big"
    assert seen.clusters_after
    assert read_measurement(artifact)[1].provenance == origin
    report = plain_text(measurement_table(measured, name="net"))
    assert "Kept on" in report
    assert device.pushed() == []


def test_one_phone_is_one_device(artifact: Path) -> None:
    with pytest.raises(BadInput, match="named twice"):
        api.profile_fleet(artifact, ["adb:x,cluster=big", "adb:x,cluster=little"])
