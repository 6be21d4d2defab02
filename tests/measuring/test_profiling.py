"""One device, measured and kept: emulated, a process, over the network, and cut off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from lines import board_on_a_network

from edgecompress import api
from edgecompress.errors import BadInput, DeviceNotFound, DeviceTrouble
from edgecompress.measuring.store import read_measurement
from edgecompress.records import Measurement

Artifact = Callable[[str], Path]


def kept(folder: Path) -> list[Measurement]:
    files = sorted((folder / "measurements").glob("*.json"))
    return [Measurement.from_json(file.read_bytes()) for file in files]


def test_the_virtual_board_counts_exactly_and_the_file_holds_all(artifact: Artifact) -> None:
    folder = artifact("cortex-m7")
    measured = api.profile(folder, runs=3, voltage_v=1.8, note="over\n\x1b<there>")
    assert measured.label == "emulated instructions"
    assert len(set(measured.ticks)) == 1
    assert measured.layers == ()
    (saved,) = kept(folder)
    assert [layer.name for layer in saved.layers] == ["hidden", "out"]
    assert saved.model_copy(update={"layers": ()}) == measured
    assert saved.provenance is not None
    assert (saved.provenance.port, saved.provenance.voltage_v) == ("virtual", 1.8)
    assert saved.provenance.note == "over  <there>"
    assert read_measurement(folder)[1] == saved


def test_layers_are_returned_when_asked_for(artifact: Artifact) -> None:
    measured = api.profile(artifact("cortex-m7"), runs=1, layers=True)
    assert len(measured.layers) == 2


def test_a_process_is_measured_in_time(artifact: Artifact) -> None:
    folder = artifact("x86-64")
    try:
        measured = api.profile(folder, device="process", runs=30)
    except DeviceNotFound as error:
        pytest.skip(str(error))
    assert measured.time is not None
    assert measured.time.runs == len(measured.ticks) == 30
    assert measured.latency_us == measured.time.median_us
    assert measured.provenance is not None
    assert measured.provenance.clock_source == "host"


@pytest.mark.parametrize("rfc2217", [False, True], ids=["socket", "rfc2217"])
def test_a_board_on_the_network(artifact: Artifact, rfc2217: bool) -> None:
    folder = artifact("x86-64")
    with board_on_a_network(folder / "firmware", rfc2217=rfc2217) as url:
        measured = api.profile(folder, device=url, runs=5)
    assert measured.label == "measured on device"
    assert measured.runs == 5
    assert measured.provenance is not None
    assert measured.provenance.port == "serial"
    assert measured.device == url


def test_a_pulled_cable_keeps_the_runs_until_then(artifact: Artifact) -> None:
    folder = artifact("x86-64")
    with (
        board_on_a_network(folder / "firmware", pull_after_bytes=6000) as url,
        pytest.raises(DeviceTrouble, match=r"of 100000 runs were measured and are kept in ") as at,
    ):
        api.profile(folder, device=url, runs=100_000)
    (saved,) = kept(folder)
    assert 1 <= saved.runs < 100_000
    assert f"{saved.runs} of 100000 runs" in saved.incomplete
    assert saved.layers == ()
    assert str(folder / "measurements") in str(at.value)


def test_nothing_measured_keeps_nothing(artifact: Artifact) -> None:
    folder = artifact("x86-64")
    with pytest.raises(DeviceNotFound):
        api.profile(folder, device="socket://127.0.0.1:1")
    assert not (folder / "measurements").exists()


def test_a_folder_that_takes_no_file_costs_the_file_only(artifact: Artifact) -> None:
    folder = artifact("cortex-m7")
    (folder / "measurements").write_text("in the way")
    said: list[str] = []

    class Listening:
        def stage(self, name: str, total: int | None = None) -> None: ...
        def advance(self, done: int = 1) -> None: ...
        def note(self, message: str) -> None:
            said.append(message)

    measured = api.profile(folder, runs=1, progress=Listening())
    assert measured.instructions
    assert "cannot take the measurement" in said[0]


def test_no_image_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"image\.json is missing"):
        api.profile(tmp_path)


def test_a_watch_is_one_measurement_of_all_its_rounds(artifact: Artifact) -> None:
    folder = artifact("cortex-m7")
    rounds = []

    def on_round(made: object) -> bool:
        rounds.append(made)
        return len(rounds) < 3

    measured = api.watch(folder, on_round, runs=2)
    assert [made.number for made in rounds] == [1, 2, 3]
    assert [made.runs for made in rounds] == [2, 4, 6]
    assert all(made.drift == 0 for made in rounds)
    assert measured.runs == 6
    (saved,) = kept(folder)
    assert saved.instructions == measured.instructions == rounds[0].instructions
    assert len(saved.layers) == 2


def test_an_interrupt_ends_a_watch_like_any_end(artifact: Artifact) -> None:
    folder = artifact("x86-64")

    def interrupted(made: object) -> None:
        if made.number == 2:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    measured = api.watch(folder, interrupted, device="process", runs=4)
    assert measured.runs == 8
    assert measured.time is not None
    assert len(kept(folder)) == 1


def test_a_cable_pulled_during_a_watch_keeps_its_rounds(artifact: Artifact) -> None:
    folder = artifact("x86-64")
    with (
        board_on_a_network(folder / "firmware", pull_after_bytes=9000) as url,
        pytest.raises(DeviceTrouble, match="runs were measured and are kept in"),
    ):
        api.watch(folder, lambda _: None, device=url, runs=3)
    (saved,) = kept(folder)
    assert saved.runs > 3
    assert saved.incomplete
    assert len(saved.layers) == 2
