"""What may be compared, what is refused and why, and what the ratio then says."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples import counted, noisy_ticks, timed

from edgecompress import api
from edgecompress.device_records import AdbConditions, CpuCluster
from edgecompress.errors import BadConfig, BadInput, UnlikeRuns
from edgecompress.measuring.likeness import ACROSS
from edgecompress.records import Build, Comparison, HostMachine, Measurement
from edgecompress.report.comparing import comparison_table
from edgecompress.report.measuring import measurement_table
from edgecompress.report.text import plain_text


@pytest.fixture
def compare(tmp_path: Path) -> Callable[..., Comparison]:
    def run(first: Measurement, second: Measurement, **options: Any) -> Comparison:
        files = [tmp_path / "first.json", tmp_path / "second.json"]
        for file, measured in zip(files, (first, second), strict=True):
            file.write_text(measured.to_json())
        return api.compare(*files, **options)

    return run


Compare = Callable[..., Comparison]


def test_the_same_firmware_twice_shows_no_difference(compare: Compare) -> None:
    compared = compare(timed(noisy_ticks(4000, seed=1)), timed(noisy_ticks(4000, seed=2)))
    assert not compared.ratio.resolved
    assert compared.ratio.low < 1 < compared.ratio.high
    assert compared.differs == {}
    assert compared.unit == "us"


def test_another_firmware_is_what_comparing_is_for(compare: Compare) -> None:
    first = timed(noisy_ticks(480_000, seed=1))
    second = timed(noisy_ticks(384_000, seed=2), firmware_hash="e" * 64, flash_bytes=80_000)
    compared = compare(first, second)
    assert compared.ratio.resolved
    assert compared.ratio.low < 0.8 < compared.ratio.high
    assert compared.ratio.value == pytest.approx(0.8, abs=0.002)
    assert compared.first == pytest.approx(1000, abs=3)
    assert compared.flash_bytes == (90_000, 80_000)
    assert set(compared.differs) == {"firmware"}
    assert [layer.name for layer in compared.layers] == ["conv", "dense"]
    assert compared.layers[0].ratio == pytest.approx(0.8, abs=0.01)


DIFFERENCES: dict[str, dict[str, Any]] = {
    "model": {"model_hash": "b" * 64},
    "target": {"target": "stm32f746zg"},
    "port": {"port": "adb"},
    "clock": {"clock_hz": 400_000_000},
    "settings": {"settings": {"icache": "on", "dcache": "off"}},
    "requantize": {"requantize": "tflite"},
    "compiler": {"build": Build(compiler="zig cc 0.17.1", flags=("-O3",))},
}


@pytest.mark.parametrize("aspect", DIFFERENCES)
def test_unlike_runs_are_refused_allowed_and_forced(compare: Compare, aspect: str) -> None:
    ticks = noisy_ticks(4000)
    first, second = timed(ticks), timed(ticks, **DIFFERENCES[aspect])
    with pytest.raises(UnlikeRuns, match="not alike") as refusal:
        compare(first, second)
    assert len(refusal.value.differences) == 1
    assert f"--across {aspect};" in str(refusal.value)
    assert refusal.value.exit_code == 2
    allowed = compare(first, second, across=[aspect])
    assert allowed.allowed == (aspect,)
    assert allowed.forced == ()
    others = [name for name in ACROSS if name != aspect]
    with pytest.raises(UnlikeRuns):
        compare(first, second, across=others)
    assert compare(first, second, force=True).forced == (aspect,)


def test_every_difference_is_named_at_once(compare: Compare) -> None:
    ticks = noisy_ticks(4000)
    second = timed(ticks, **DIFFERENCES["clock"], **DIFFERENCES["settings"])
    with pytest.raises(UnlikeRuns) as refusal:
        compare(timed(ticks), second)
    assert [what for what, *_ in refusal.value.differences] == ["clock", "settings"]
    assert "480 MHz against 400 MHz" in str(refusal.value)
    assert compare(timed(ticks), second, across=["clock", "settings"]).ratio.value == 1


@pytest.mark.parametrize("options", [{}, {"force": True}, {"force": True, "across": ACROSS}])
def test_instructions_are_never_compared_with_time(
    compare: Compare, options: dict[str, Any]
) -> None:
    with pytest.raises(UnlikeRuns, match="emulated instructions against measured on device"):
        compare(counted(4000), timed(noisy_ticks(4000)), **options)


def test_the_host_matters_only_where_it_is_the_device(compare: Compare) -> None:
    ticks = noisy_ticks(4000)
    other = HostMachine(system="Linux", machine="x86_64", processor="another")
    assert compare(timed(ticks), timed(ticks, host=other)).differs == {}
    with pytest.raises(UnlikeRuns, match="a processor, Linux against another, Linux"):
        compare(timed(ticks, port="process"), timed(ticks, port="process", host=other))


def test_two_boards_and_two_firmwares_at_once_tell_nothing(compare: Compare) -> None:
    ticks = noisy_ticks(4000)
    board, firmware = {"device_id": "0022"}, {"firmware_hash": "e" * 64}
    assert set(compare(timed(ticks), timed(ticks, **board)).differs) == {"device"}
    with pytest.raises(UnlikeRuns, match="board: 0011 against 0022"):
        compare(timed(ticks), timed(ticks, **board, **firmware))
    assert compare(timed(ticks), timed(ticks, **board, **firmware), across=["device"]).allowed == (
        "device",
    )
    unknown = {"device_id": ""}
    compared = compare(timed(ticks), timed(ticks, **unknown, **firmware))
    assert compared.differs["device"] == ("0011", "")


def test_a_phones_cores_and_governor_are_settings(compare: Compare) -> None:
    def on(cpus: tuple[int, ...], governor: str) -> Measurement:
        cluster = CpuCluster(name="big", cpus=(4, 5, 6, 7), governor=governor)
        seen = AdbConditions(serial="x", pinned_cpus=cpus, clusters_after=(cluster,))
        return timed(noisy_ticks(4000), port="adb", settings={}, conditions=seen)

    assert compare(on((4, 5), "performance"), on((4, 5), "performance")).differs == {}
    with pytest.raises(UnlikeRuns, match=r"settings: cpus=4\+5 .* against cpus=0"):
        compare(on((4, 5), "performance"), on((0,), "performance"))
    with pytest.raises(UnlikeRuns, match="big=schedutil"):
        compare(on((4, 5), "performance"), on((4, 5), "schedutil"))


def test_versions_that_differ_are_named_alone(compare: Compare) -> None:
    ticks = noisy_ticks(4000)
    first = timed(ticks, versions={"numpy": "2.1", "scipy": "1.17"})
    second = timed(ticks, versions={"numpy": "2.2", "scipy": "1.17", "unicorn": "2.1"})
    compared = compare(first, second)
    assert compared.differs["versions"] == ("numpy 2.1, unicorn absent", "numpy 2.2, unicorn 2.1")


def test_a_clock_read_back_a_hair_off_is_the_same(compare: Compare) -> None:
    ticks = noisy_ticks(4000)
    assert compare(timed(ticks), timed(ticks, clock_hz=480_000_100)).differs == {}


def test_emulated_counts_have_an_exact_ratio(compare: Compare) -> None:
    compared = compare(counted(4000), counted(3000, firmware_hash="e" * 64))
    assert compared.ratio.exact
    assert compared.ratio.low == compared.ratio.value == compared.ratio.high == 0.75
    assert compared.method == "exact, emulated"
    assert compared.unit == "instructions"
    assert compared.warnings == ()


def test_a_coarse_emulated_timer_gives_bounds(compare: Compare) -> None:
    def on_qemu(count: int) -> Measurement:
        return counted(count, per_tick=40.0, port="qemu")

    compared = compare(on_qemu(4000), on_qemu(4000))
    assert not compared.ratio.exact
    assert compared.ratio.low == pytest.approx(3960 / 4040)
    assert compared.ratio.high == pytest.approx(4040 / 3960)
    assert not compared.ratio.resolved


def test_two_emulators_count_differently(compare: Compare) -> None:
    with pytest.raises(UnlikeRuns, match="way to the device: virtual against qemu"):
        compare(counted(4000), counted(4000, per_tick=40.0, port="qemu"))


def test_layers_that_only_one_has_have_no_ratio(compare: Compare) -> None:
    second = counted(4000, firmware_hash="e" * 64)
    second = second.model_copy(update={"layers": second.layers[:1]})
    compared = compare(counted(4000), second)
    assert [(layer.name, layer.ratio) for layer in compared.layers] == [
        ("conv", 1.0),
        ("dense", None),
    ]


def test_one_run_gives_no_interval(compare: Compare) -> None:
    with pytest.raises(BadInput, match="single run"):
        compare(timed([4000]), timed([4000, 4001]))


def test_few_runs_warnings_and_breaks_are_carried_over(compare: Compare) -> None:
    first = timed([4000, 4001, 4002])
    first = first.model_copy(update={"warnings": ("Hot.",), "incomplete": "3 of 9 runs"})
    said = "\n".join(compare(first, timed(noisy_ticks(4000))).warnings)
    assert "In the first: Hot." in said
    assert "The first is incomplete: 3 of 9 runs" in said
    assert "The first has 3 runs" in said
    assert "second" not in said


def test_a_measurement_without_a_figure_is_refused(compare: Compare) -> None:
    empty = counted(4000).model_copy(update={"instructions": None, "instructions_per_tick": None})
    with pytest.raises(BadInput, match="neither a time nor a count"):
        compare(empty, empty)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"device": "x"}', "\x00"])
def test_a_damaged_file_is_bad_input(tmp_path: Path, content: str) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text(content)
    with pytest.raises(BadInput, match=r"bad\.json is not a measurement"):
        api.compare(bad, bad)


def leaves(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(document, dict):
        parts = document.items()
    elif isinstance(document, list):
        parts = enumerate(document)
    else:
        return [path]
    return [path, *(leaf for key, part in parts for leaf in leaves(part, (*path, key)))]


ODD = (None, True, 0, -1, 1e-300, 1e308, float("nan"), float("inf"), 10**30, "", "x", [], {}, [0])


@pytest.mark.parametrize("made", [timed([4000, 4001, 4002]), counted(4000)], ids=["time", "count"])
def test_no_file_however_odd_is_more_than_bad_input(
    compare: Compare, tmp_path: Path, made: Measurement
) -> None:
    random = np.random.default_rng(5)
    good = json.loads(made.to_json())
    paths = leaves(good)[1:]
    accepted = 0
    for _ in range(250):
        odd = copy.deepcopy(good)
        *outer, last = paths[random.integers(len(paths))]
        inside = odd
        for key in outer:
            inside = inside[key]
        inside[last] = ODD[random.integers(len(ODD))]
        (tmp_path / "odd.json").write_text(json.dumps(odd))
        (tmp_path / "good.json").write_text(made.to_json())
        try:
            compared = api.compare(tmp_path / "good.json", tmp_path / "odd.json", force=True)
        except BadInput:
            continue
        accepted += 1
        plain_text(comparison_table(compared))
        plain_text(measurement_table(Measurement.model_validate(odd), name="odd"))
    assert 10 < accepted < 200


def test_a_timer_that_stood_still_has_no_ratio(compare: Compare) -> None:
    with pytest.raises(BadInput, match="took no time"):
        compare(timed([0, 0, 0]), timed([4000, 4000]))


def test_figures_that_are_not_those_of_the_runs_are_refused(compare: Compare) -> None:
    made = timed(noisy_ticks(4000))
    assert made.time is not None
    faster = made.time.model_copy(update={"median_us": made.time.median_us / 2})
    with pytest.raises(BadInput, match="contradicts itself"):
        compare(made, made.model_copy(update={"time": faster}))
    fewer = counted(4000).model_copy(update={"instructions": 3000})
    with pytest.raises(BadInput, match="contradicts itself"):
        compare(counted(4000), fewer)


def test_what_is_not_there_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        api.compare(tmp_path / "a.json", tmp_path / "b.json")
    with pytest.raises(BadInput, match="holds no measurement"):
        api.compare(tmp_path, tmp_path)


def test_a_measurement_of_unknown_origin_is_refused(compare: Compare) -> None:
    lost = counted(4000).model_copy(update={"provenance": None})
    with pytest.raises(BadInput, match="does not say where it comes from"):
        compare(lost, counted(4000))


def test_across_takes_known_names_only(compare: Compare) -> None:
    with pytest.raises(BadConfig, match="'weather' is nothing to compare across"):
        compare(counted(4000), counted(4000), across=["weather"])
    with pytest.raises(BadConfig):
        compare(counted(4000), counted(4000), across=["kind"])


def test_a_folder_stands_for_its_latest_measurement(artifact: Callable[[str], Path]) -> None:
    folder = artifact("cortex-m7")
    api.profile(folder, runs=1)
    latest = api.profile(folder, runs=2)
    shutil.copy(next((folder / "measurements").iterdir()), folder / "measurements" / "notes.json")
    compared = api.compare(folder, folder)
    assert compared.ratio.value == 1
    assert compared.first == latest.instructions
    assert Path(compared.first_name).name.startswith("20")


def test_a_folder_whose_latest_measurement_is_of_an_older_image_is_refused(
    artifact: Callable[[str], Path],
) -> None:
    folder = artifact("cortex-m7")
    api.profile(folder, runs=1)
    (file,) = (folder / "measurements").iterdir()
    saved = Measurement.from_json(file.read_bytes())
    assert saved.provenance is not None
    older = saved.provenance.model_copy(update={"firmware_hash": "0" * 64})
    file.write_text(saved.model_copy(update={"provenance": older}).to_json())
    with pytest.raises(BadInput, match="another firmware"):
        api.compare(folder, folder)
    assert api.compare(file, file).ratio.exact
