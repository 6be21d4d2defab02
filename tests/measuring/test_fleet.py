"""Several boards at once: side by side, and what fails does not take the others along."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lines import board_on_a_network

from edgecompress import api
from edgecompress.device import discover as discovery
from edgecompress.device.harness import Session, open_device
from edgecompress.device_records import FoundDevice
from edgecompress.errors import BadInput, DeviceNotFound
from edgecompress.measuring import fleet as fleets

Artifact = Callable[[str], Path]


def files(folder: Path) -> int:
    return len(list((folder / "measurements").glob("*.json")))


def test_three_virtual_boards_of_which_one_dies(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = artifact("cortex-m7")
    opened: list[Session] = []
    lock = threading.Lock()

    def open_one_to_die(*arguments: Any) -> Session:
        session = open_device(*arguments)
        with lock:
            opened.append(session)
            if len(opened) == 2:
                run = session.run

                def once_then_dead() -> int:
                    board: Any = session.port
                    ticks = run()
                    board.board.stop()
                    return ticks

                monkeypatch.setattr(session, "run", once_then_dead)
        return session

    monkeypatch.setattr(fleets, "open_device", open_one_to_die)
    fleet = api.profile_fleet(folder, ["virtual"] * 3, runs=4, warmup=0)
    assert not fleet.complete
    (dead,) = [member for member in fleet.members if member.measurement is None]
    assert dead.error_kind == "DeviceFault"
    assert "of 4 runs were measured and are kept" in dead.error
    assert len(fleet.measured) == 2
    assert len({measured.instructions for measured in fleet.measured}) == 1
    assert files(folder) == 3


def test_boards_of_several_kinds_side_by_side(artifact: Artifact) -> None:
    folder = artifact("x86-64")
    with board_on_a_network(folder / "firmware") as url:
        fleet = api.profile_fleet(folder, ["process", url, "socket://127.0.0.1:1"], runs=5)
    process, network, missing = fleet.members
    assert process.measurement is not None
    assert process.measurement.runs == 5
    assert network.measurement is not None
    assert network.device == url
    assert missing.error_kind == "DeviceNotFound"
    assert files(folder) == 2


def test_they_are_measured_at_the_same_time(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(3, timeout=20)

    def open_together(*arguments: Any) -> Session:
        session = open_device(*arguments)
        together.wait()
        return session

    monkeypatch.setattr(fleets, "open_device", open_together)
    assert api.profile_fleet(artifact("cortex-m7"), ["virtual"] * 3, runs=1).complete


def test_one_port_is_one_board(artifact: Artifact) -> None:
    folder = artifact("cortex-m7")
    with pytest.raises(BadInput, match="named twice"):
        api.profile_fleet(folder, ["serial:/dev/ttyACM0"] * 2)
    with pytest.raises(BadInput, match="No device"):
        api.profile_fleet(folder, [])


def test_an_interrupt_closes_every_port(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = artifact("x86-64")
    sessions: list[Session] = []
    busy = threading.Event()

    def remembered(*arguments: Any) -> Session:
        sessions.append(open_device(*arguments))
        return sessions[-1]

    join = threading.Thread.join

    def interrupted(self: threading.Thread, timeout: float | None = None) -> None:
        if timeout == 0.2 and not busy.is_set() and len(sessions) == 2:
            busy.set()
            raise KeyboardInterrupt
        join(self, timeout)

    monkeypatch.setattr(fleets, "open_device", remembered)
    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        api.profile_fleet(folder, ["process", "process"], runs=1_000_000)
    for session in sessions:
        program: Any = session.port
        assert program._process.poll() is not None


def found(**fields: Any) -> FoundDevice:
    return FoundDevice(**{"kind": "serial", "description": "a board", **fields})


def test_all_means_every_board_that_runs_this_model(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = artifact("cortex-m7")
    devices = [
        found(address="serial:/dev/ttyACM0", model="5eed" * 16),
        found(address="serial:/dev/ttyACM1", model="b0a2" * 16),
        found(address="serial:/dev/ttyACM2", state="no edgecompress firmware answered"),
        found(address="adb:phone", kind="adb"),
        found(address="virtual", kind="virtual"),
        found(address="serial:/dev/ttyACM3", model="5eed" * 16),
    ]
    monkeypatch.setattr(discovery, "discover", lambda probe: devices if probe else [])
    assert api.find_boards(folder) == ["serial:/dev/ttyACM0", "serial:/dev/ttyACM3"]
    assert api.find_boards(folder, target="aarch64") == [
        "serial:/dev/ttyACM0", "adb:phone", "serial:/dev/ttyACM3"
    ]  # fmt: skip
    devices.clear()
    with pytest.raises(DeviceNotFound, match="No attached board"):
        api.find_boards(folder)
    devices.append(found(address="serial:/dev/ttyACM1", likely_targets=("cortex-*",)))
    assert api.find_boards(folder, flash=True) == ["serial:/dev/ttyACM1"]


def test_each_board_is_flashed_through_its_own_probe(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgecompress.device import flash as flasher
    from edgecompress.device_records import FlashReport

    folder = artifact("x86-64")
    asked: list[dict[str, Any]] = []

    def flash(image_dir: Path, profile: Any, **where: Any) -> FlashReport:
        asked.append(where)
        return FlashReport(
            tool="pyocd", where=str(where["probe"]), target=profile.name, chip="", verified="read",
            firmware_hash="", flash_bytes=1, seconds=0.1,
        )  # fmt: skip

    boards = [
        found(address=f"serial:/dev/ttyACM{number}", details={"serial_number": f"PROBE{number}"})
        for number in range(2)
    ]
    probes = [found(address="PROBE1", kind="probe")]
    monkeypatch.setattr(discovery, "discover", lambda **_: boards + probes)
    monkeypatch.setattr(flasher, "flash", flash)
    fleet = api.profile_fleet(
        folder, ["serial:/dev/ttyACM0", "serial:/dev/ttyACM1", "process"], runs=1, flash=True
    )
    assert sorted(str(where["probe"]) for where in asked) == ["None", "PROBE1"]
    assert all(where["port"] is None for where in asked)
    assert [member.error_kind for member in fleet.members] == [
        "DeviceNotFound", "DeviceNotFound", "BadInput"
    ]  # fmt: skip
    assert "is not a board that is flashed" in fleet.members[2].error
