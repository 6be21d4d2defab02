"""profile, compare and verify on the command line: what reaches the api, tables, exit codes."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "measuring"))

from samples import counted, noisy_ticks, origin, timed

from edgecompress import api, errors
from edgecompress.cli import main
from edgecompress.records import (
    Comparison,
    DeviceVerification,
    Difference,
    Fleet,
    FleetMember,
    Measurement,
    Verification,
)

Capture = pytest.CaptureFixture[str]


class StandIn:
    """Takes the api's place: remembers what it was given, gives back what it was told to."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.given = answer, {}

    def __call__(self, *positional: Any, **named: Any) -> Any:
        named.pop("progress", None)
        self.given = {"positional": positional, **named}
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


Replace = Callable[[str, Any], StandIn]


@pytest.fixture
def replace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Replace:
    monkeypatch.chdir(tmp_path)

    def put(name: str, answer: Any) -> StandIn:
        double = StandIn(answer)
        monkeypatch.setattr(api, name, double)
        return double

    return put


def test_one_device_gets_every_option(replace: Replace, capsys: Capture) -> None:
    profile = replace("profile", timed(noisy_ticks(480_000)))
    line = (
        "profile build/x --device serial:/dev/ttyACM0 --runs 40 --warm-up 3 --layers "
        "--voltage 3.3 --note desk --target my.toml --flash --probe 066E"
    )
    assert main(line.split()) == 0
    assert profile.given == {
        "positional": (Path("build/x"),), "device": "serial:/dev/ttyACM0", "runs": 40,
        "warmup": 3, "layers": True, "voltage_v": 3.3, "note": "desk", "target": "my.toml",
        "flash": True, "probe": "066E",
    }  # fmt: skip
    out = capsys.readouterr().out
    assert "measured on device, 40 runs after 1 to warm up" in out
    for words in ("Median", "IQR", "min ", "p99 ", "95 % interval", "Outliers", "1 tick = "):
        assert words in out
    assert "480 MHz, registers" in out
    assert "dcache=on icache=on" in out


def test_emulated_counts_are_not_dressed_as_statistics(replace: Replace, capsys: Capture) -> None:
    replace("profile", counted(123_456))
    assert main(["profile", "x"]) == 0
    out = capsys.readouterr().out
    assert "123,456 an inference (exact, emulated)" in out
    for words in ("Median", "IQR", "Mean", "p99", "Outliers"):
        assert words not in out


def test_warnings_stand_in_the_report(replace: Replace, capsys: Capture) -> None:
    measured = timed(noisy_ticks(4000))
    replace("profile", measured.model_copy(update={"warnings": ("Off on the device: icache.",)}))
    assert main(["profile", "x"]) == 0
    assert "Warning" in (out := capsys.readouterr().out)
    assert "Off on the device: icache." in out


def a_fleet(*, broken: bool) -> Fleet:
    members = [
        FleetMember(device="serial:/dev/ttyACM0", measurement=timed(noisy_ticks(480_000))),
        FleetMember(
            device="serial:/dev/ttyACM1",
            measurement=timed(noisy_ticks(528_000, seed=1), device_id="00ff"),
        ),
    ]
    if broken:
        members.append(
            FleetMember(device="socket://h:1", error_kind="DeviceFault", error="It is gone.")
        )
    return Fleet(members=tuple(members))


@pytest.mark.parametrize("broken", [False, True])
def test_several_devices_are_tabled_side_by_side(
    replace: Replace, capsys: Capture, broken: bool
) -> None:
    fleet = replace("profile_fleet", a_fleet(broken=broken))
    line = "profile x --device serial:/dev/ttyACM0 --device serial:/dev/ttyACM1 --runs 40"
    assert main(line.split()) == (3 if broken else 0)
    assert fleet.given["positional"][1] == ["serial:/dev/ttyACM0", "serial:/dev/ttyACM1"]
    out = capsys.readouterr().out
    second = next(row for row in out.splitlines() if row.startswith("serial:/dev/ttyACM1"))
    assert "+10.0" in second
    assert "00ff" in second
    assert ("socket://h:1: It is gone." in out) == broken
    assert main([*line.split(), "--json"]) == (3 if broken else 0)
    assert Fleet.from_json(capsys.readouterr().out) == fleet.answer


def test_all_adds_what_is_attached(replace: Replace) -> None:
    fleet = replace("profile_fleet", a_fleet(broken=False))
    boards = replace("find_boards", ["serial:/dev/ttyACM1", "serial:/dev/ttyACM0"])
    assert main(["profile", "x", "--all", "--device", "serial:/dev/ttyACM0", "--flash"]) == 0
    assert fleet.given["positional"][1] == ["serial:/dev/ttyACM0", "serial:/dev/ttyACM1"]
    assert fleet.given["flash"] is True
    assert boards.given["flash"] is True


@pytest.mark.parametrize(
    "options",
    ["--watch --all", "--watch --device a --device b", "--watch --flash",
     "--device a --device b --probe 1"],
)  # fmt: skip
def test_options_that_contradict_are_refused(options: str, capsys: Capture) -> None:
    assert main(f"profile x {options}".split()) == 2
    assert "error:" in capsys.readouterr().err


def a_comparison(**changes: Any) -> Comparison:
    fields: dict[str, Any] = {
        "first_name": "a.json", "second_name": "b.json", "label": "measured on device",
        "unit": "us", "first": 1000.0, "second": 800.0,
        "ratio": {"value": 0.8, "low": 0.79, "high": 0.81}, "method": "95 % interval: bootstrap",
        "layers": [{"name": "conv", "first": 750.0, "second": 600.0, "ratio": 0.8},
                   {"name": "odd", "first": 250.0, "second": None, "ratio": None}],
        "flash_bytes": (90_000, 80_000), "ram_bytes": (30_000, 30_000),
        "differs": {"firmware": ("aaaa", "bbbb"), "clock": ("480 MHz", "400 MHz")},
        "allowed": ("clock",),
    }  # fmt: skip
    return Comparison.model_validate({**fields, **changes})


def test_compare_shows_ratio_layers_sizes_and_differences(
    replace: Replace, capsys: Capture
) -> None:
    compare = replace("compare", a_comparison())
    assert main(["compare", "a.json", "b.json", "--across", "clock,settings", "--force"]) == 0
    assert compare.given == {
        "positional": (Path("a.json"), Path("b.json")), "across": ["clock", "settings"],
        "force": True,
    }  # fmt: skip
    out = capsys.readouterr().out
    assert "0.8000 (0.7900 to 0.8100), 20.00 % less" in out
    assert "absent" in out
    assert "-11.11 %" in out
    assert "Differs: clock, as asked" in out
    assert "Forced" not in out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ratio": {"value": 0.99, "low": 0.9, "high": 1.1}}, "no difference resolved"),
        ({"ratio": {"value": 1.25, "low": 1.25, "high": 1.25, "exact": True}}, "25.00 % more"),
        ({"ratio": {"value": 1.0, "low": 1.0, "high": 1.0, "exact": True}}, "the same"),
        ({"forced": ("model",)}, "unlike in model: no honest comparison"),
        ({"warnings": ("In the first: Hot.",)}, "In the first: Hot."),
    ],
)
def test_compare_says_how_sure_it_is(
    replace: Replace, capsys: Capture, changes: dict[str, Any], words: str
) -> None:
    replace("compare", a_comparison(**changes))
    assert main(["compare", "a.json", "b.json"]) == 0
    assert words in capsys.readouterr().out


def test_a_refusal_is_exit_2_with_every_reason(replace: Replace, capsys: Capture) -> None:
    for name, measured in (("a", timed(noisy_ticks(400))), ("b", timed(noisy_ticks(400),
                           clock_hz=1, target="other"))):  # fmt: skip
        Path(f"{name}.json").write_text(measured.to_json())
    assert main(["compare", "a.json", "b.json", "--json"]) == 2
    captured = capsys.readouterr()
    error = json.loads(captured.out)["error"]
    assert error["kind"] == "UnlikeRuns"
    assert [one["what"] for one in error["differences"]] == ["target", "clock"]
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err


def a_verification(**changes: Any) -> DeviceVerification:
    fields: dict[str, Any] = {
        "device": "serial:/dev/ttyACM0", "samples_asked": 10, "data": "d.npz",
        "verification": Verification(exact=True, layers=8, samples=10, sides=("host", "device")),
        "device_accuracy": 90.0, "host_accuracy": 90.0, "provenance": origin(),
    }  # fmt: skip
    return DeviceVerification(**fields | changes)


DIFFERENT = Verification(
    exact=False, layers=8, samples=10, sides=("host", "device"),
    first_difference=Difference(layer="conv", element=(0, 1), sides=("host", "device"),
                                values=(3, 4)),
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({}, 0, "8, each bit-exact: host = device"),
        ({"stopped": "the time limit of 5 s was reached"}, 0, "the time limit of 5 s"),
        ({"stopped": "the cable is gone.", "broken": True}, 3, "the cable is gone."),
        (
            {"verification": DIFFERENT, "first_sample": 4, "disagreements": {"conv": 2}},
            3,
            "sample 4, layer conv, element [0, 1]: host 3, device 4",
        ),
    ],
)
def test_verify_ends_as_it_went(
    replace: Replace, capsys: Capture, changes: dict[str, Any], code: int, words: str
) -> None:
    verify = replace("verify", a_verification(**changes))
    line = "verify x --device serial:/dev/ttyACM0 --samples 10 --data d.npz --time-limit 5"
    assert main(line.split()) == code
    assert verify.given["time_limit_s"] == 5
    assert (verify.given["samples"], verify.given["data"]) == (10, "d.npz")
    out = capsys.readouterr().out
    assert words in out
    assert "90.00 % top-1 on the device" in out
    assert main([*line.split(), "--json"]) == code
    assert DeviceVerification.from_json(capsys.readouterr().out) == verify.answer


def test_device_trouble_is_exit_3(replace: Replace, capsys: Capture) -> None:
    replace("verify", errors.DeviceFault("gone."))
    assert main(["verify", "x"]) == 3
    assert "gone." in capsys.readouterr().err


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sys.path.insert(0, str(Path(__file__).parent / "device"))
    from tiny_image import build_tiny_image

    from edgecompress.target.registry import load_target

    folder = tmp_path_factory.mktemp("tiny")
    build_tiny_image(load_target("cortex-m7"), folder)
    return folder


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_a_watch_cleanly(tiny: Path, tmp_path: Path, sent: signal.Signals) -> None:
    for name in ("image.json", "firmware.elf"):
        shutil.copy(tiny / name, tmp_path / name)
    process = subprocess.Popen(
        [sys.executable, "-m", "edgecompress", "profile", ".", "--watch", "--runs", "2", "--json"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    seen = ""
    while "round 3" not in seen:
        line = process.stderr.readline()
        assert line, f"ended before it watched: {seen}"
        seen += line
    process.send_signal(sent)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    measured = Measurement.from_json(out)
    assert measured.runs >= 6
    assert "drift +0.00 %" in seen
    assert "Traceback" not in err
    (file,) = (tmp_path / "measurements").iterdir()
    assert Measurement.from_json(file.read_bytes()).ticks == measured.ticks
