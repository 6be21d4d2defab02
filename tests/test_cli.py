"""The command line over a stand-in api: parsing, precedence, output, exit codes."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from edgecompress import api, errors
from edgecompress.cli import main
from edgecompress.cli.failures import explain
from edgecompress.records import (
    Accuracy,
    Budget,
    Difference,
    FlashUse,
    LayerMeasurement,
    Measurement,
    Plan,
    Prediction,
    RamUse,
    Result,
    Verification,
)


def a_result(**changes: Any) -> Result:
    fields: dict[str, Any] = {
        "command": "fit",
        "model": "demo",
        "target": "cortex-m7",
        "fits": True,
        "accuracy": Accuracy(),
        "flash": FlashUse(used_bytes=9, budget_bytes=10, predicted_bytes=9, sections={}),
        "ram": RamUse(used_bytes=9, budget_bytes=10, predicted_bytes=9, parts={}),
        "verified": Verification(exact=True, layers=1, samples=1, sides=("host", "device")),
    }
    return Result(**{**fields, **changes})


def a_plan(**changes: Any) -> Plan:
    fields: dict[str, Any] = {
        "model_hash": "a",
        "data_hash": "b",
        "target": "cortex-m7",
        "budget": Budget(flash_bytes=10, ram_bytes=10),
        "seed": 0,
        "effort": "fast",
        "predicted": Prediction(flash_bytes=9, ram_bytes=9),
    }
    return Plan(**{**fields, **changes})


class StandIn:
    """Remembers the keyword arguments of each call and answers, or raises, what it was told."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.answer: Any = a_result()

    def __call__(self, *positional: Any, **named: Any) -> Any:
        self.calls.append({"positional": positional, **named})
        answer = self.answer(named) if callable(self.answer) else self.answer
        if isinstance(answer, BaseException):
            raise answer
        return answer

    @property
    def called(self) -> dict[str, Any]:
        assert len(self.calls) == 1
        return self.calls[0]


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    double = StandIn()
    for name in ("fit", "plan", "compile_model", "profile", "inspect"):
        monkeypatch.setattr(api, name, double)
    return double


def test_fit_without_a_model_is_the_demo_and_says_so(
    stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--target", "cortex-m7"]) == 0
    assert stand_in.called["model"] == "demo"
    assert stand_in.called["target"] == "cortex-m7"
    captured = capsys.readouterr()
    assert "No model given: fitting the bundled demo" in captured.err
    assert captured.out.startswith("demo on cortex-m7: FITS")


def test_fit_hands_every_option_to_the_api(stand_in: StandIn) -> None:
    line = (
        "fit net.onnx --data d.npz --target cortex-m4 --flash 512K --ram 128K --latency-us 5e4 "
        "--effort balanced --seed 3 --output out --requantize tflite --precision float32 "
        "--plan plan.json --input-shape 1,3,32,32 --trust --device qemu --optimize size "
        "--max-accuracy-drop 1.5 --metric pkg.mod:score --jobs 2 --log-folder logs"
    )
    assert main(line.split()) == 0
    called = stand_in.called
    assert called.pop("progress") is not None
    assert called == {
        "positional": (), "model": "net.onnx", "data": "d.npz", "target": "cortex-m4",
        "flash": 524288, "ram": 131072, "latency_us": 5e4, "effort": "balanced", "seed": 3,
        "output": Path("out"), "requantize": "tflite", "precision": "float32", "optimize": "size",
        "plan": Path("plan.json"), "input_shape": (1, 3, 32, 32), "trust": True, "device": "qemu",
        "earlier": None, "max_accuracy_drop": 1.5, "metric": "pkg.mod:score", "jobs": 2,
        "ray": None, "log_folder": Path("logs"),
    }  # fmt: skip
    assert type(called["effort"]) is type(called["requantize"]) is str


def test_command_line_beats_the_file_and_the_file_beats_the_default(
    stand_in: StandIn, working_folder: Path
) -> None:
    (working_folder / "edgecompress.toml").write_text(
        'model = "file.onnx"\ntarget = "cortex-m4"\nflash = "512K"\nseed = 5\n'
    )
    assert main(["fit", "--flash", "1M", "--seed", "0"]) == 0
    called = stand_in.called
    assert (called["model"], called["target"]) == ("file.onnx", "cortex-m4")
    assert (called["flash"], called["seed"], called["ram"]) == (1024 * 1024, 0, None)
    assert called["effort"] == "fast"


def test_no_target_is_said_aloud(stand_in: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit"]) == 0
    assert stand_in.called["target"] == "cortex-m7"
    assert "No target given: cortex-m7" in capsys.readouterr().err


def test_json_is_the_result_file_and_the_only_thing_on_stdout(
    stand_in: StandIn, capfd: pytest.CaptureFixture[str]
) -> None:
    def noisy(named: dict[str, Any]) -> Result:
        import os

        named["progress"].stage("Work", total=3)
        named["progress"].advance()
        named["progress"].note("found something")
        print("a library prints")
        os.write(1, b"native code prints\n")
        return a_result()

    stand_in.answer = noisy
    assert main(["fit", "--json"]) == 0
    captured = capfd.readouterr()
    assert captured.out == a_result().to_json()
    for text in ("Work", "found something", "a library prints", "native code prints"):
        assert text in captured.err


def test_warnings_are_for_debug(stand_in: StandIn, recwarn: pytest.WarningsRecorder) -> None:
    def warning(_named: dict[str, Any]) -> Result:
        warnings.warn("an internal matter", UserWarning, stacklevel=1)
        return a_result()

    stand_in.answer = warning
    assert main(["fit"]) == 0
    assert not recwarn.list
    assert main(["fit", "--debug"]) == 0
    assert [str(one.message) for one in recwarn.list] == ["an internal matter"]


@pytest.mark.parametrize("arguments", [["fit"], ["compile", "a.tflite"]])
def test_a_result_that_does_not_fit_exits_1(
    stand_in: StandIn, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    stand_in.answer = a_result(fits=False)
    assert main(arguments) == 1
    assert "DOES NOT FIT" in capsys.readouterr().out


def test_a_first_difference_exits_3(stand_in: StandIn) -> None:
    difference = Difference(layer="x", element=(0,), sides=("host", "device"), values=(0, 1))
    stand_in.answer = a_result(
        verified=Verification(
            exact=False, layers=1, samples=1, sides=(), first_difference=difference
        )
    )
    assert main(["fit"]) == 3


ERRORS: list[tuple[Exception, int, str]] = [
    (errors.UnknownTarget("No such target."), 2, "UnknownTarget"),
    (errors.BadData("NaN in x[3].", next_step="Clean it."), 2, "BadData"),
    (errors.BuildFailed("zig said no."), 2, "BuildFailed"),
    (errors.DeviceTimeout("No answer in 10 s."), 3, "DeviceTimeout"),
    (errors.VerificationFailed("Layer 'a' differs."), 3, "VerificationFailed"),
    (errors.DoesNotFit("Too big.", resource="ram", needed=9, limit=5), 1, "DoesNotFit"),
    (errors.UnsupportedOperators([("Erf", "n1", "no kernel")]), 2, "UnsupportedOperators"),
    (ValueError("broken\ninside"), 70, "Bug"),
]


@pytest.mark.parametrize(("error", "code", "kind"), ERRORS, ids=[kind for *_, kind in ERRORS])
def test_an_error_is_one_line_and_its_exit_code(
    stand_in: StandIn,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
    kind: str,
) -> None:
    stand_in.answer = error
    assert main(["fit", "net.onnx", "--target", "cortex-m7"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert main(["fit", "net.onnx", "--target", "cortex-m7", "--json"]) == code
    document = json.loads(capsys.readouterr().out)["error"]
    assert (document["kind"], document["exit_code"]) == (kind, code)
    assert document["message"]


def test_error_documents_carry_their_numbers() -> None:
    too_big = errors.DoesNotFit("Too big.", resource="ram", needed=9, limit=5)
    document = explain(too_big).document()
    assert {key: document[key] for key in ("resource", "needed", "limit", "unit")} == {
        "resource": "ram", "needed": 9, "limit": 5, "unit": "bytes",
    }  # fmt: skip
    refused = explain(errors.UnsupportedOperators([("Erf", "n1", "no kernel")])).document()
    assert refused["operators"] == [{"operator": "Erf", "node": "n1", "reason": "no kernel"}]


def test_traceback_only_with_debug(stand_in: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    stand_in.answer = ValueError("inside")
    main(["fit"])
    hidden = capsys.readouterr().err
    assert "Traceback" not in hidden
    assert "run again with --debug" in hidden
    main(["fit", "--debug"])
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit", "--bogus"], "--bogus"),
        (["fit", "--effort", "heroic"], "heroic"),
        (["compile", "x.tflite", "--optimize", "fun"], "'--optimize': 'fun' is not one of"),
        (["fit", "--seed", "-1"], "--seed"),
        (["compile"], "models"),
        (["teleport"], "teleport"),
        (["fit", "--flash", "512Q"], "command line: 'flash' = '512Q'"),
        (["fit", "--input-shape", "1,x"], "command line: 'input_shape' = '1,x'"),
        (["fit", "--target", "cortx-m7"], "Nearest: cortex-m7"),
        (["plan", "--target", "no.toml"], "There is no target file 'no.toml'"),
        (["targets", "show", "cortx-m7"], "Nearest: cortex-m7"),
        (["profile"], "image_dir"),
        (["fit", "--plan", "plan.json", "--latency-us", "0"], "latency_us"),
    ],
)
def test_bad_command_lines_are_one_line_and_exit_2(
    stand_in: StandIn, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert main([*arguments, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["exit_code"] == 2
    assert not stand_in.calls


def test_a_bad_config_file_exits_2(
    stand_in: StandIn, working_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (working_folder / "edgecompress.toml").write_text('traget = "cortex-m7"\n')
    assert main(["fit"]) == 2
    assert "edgecompress.toml: 'traget' is not an option" in capsys.readouterr().err
    assert not stand_in.calls


def test_plan_prints_its_table_or_its_file(
    stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in.answer = a_plan(widths={"conv1": 24})
    assert main(["plan", "net.onnx", "--data", "d.npz", "--target", "cortex-m7"]) == 0
    assert "conv1" in capsys.readouterr().out
    assert main(["plan", "net.onnx", "--json"]) == 0
    assert Plan.from_json(capsys.readouterr().out) == stand_in.answer


def test_a_plan_over_its_budget_exits_1(stand_in: StandIn) -> None:
    stand_in.answer = a_plan(predicted=Prediction(flash_bytes=11, ram_bytes=9))
    assert main(["plan"]) == 1
    stand_in.answer = a_plan(predicted=Prediction(flash_bytes=9, ram_bytes=11))
    assert main(["plan"]) == 1


def test_compile_one_model_prints_the_same_document_as_result_json(
    stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "compile a.tflite --target cortex-m4 --requantize tflite --allow-float --dump d --json"
    assert main(line.split()) == 0
    called = stand_in.called
    assert (called["model"], called["target"]) == ("a.tflite", "cortex-m4")
    assert (called["requantize"], called["allow_float"]) == ("tflite", True)
    assert called["dump"] == Path("d")
    assert "effort" not in called
    assert capsys.readouterr().out == a_result().to_json()


def test_compile_several_goes_on_after_a_failure_and_exits_with_the_gravest(
    stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    def each(named: dict[str, Any]) -> Any:
        if named["model"] == "b.tflite":
            return errors.UnreadableModel("Not a model.")
        return a_result(model=named["model"], fits=named["model"] != "c.tflite")

    stand_in.answer = each
    line = "compile a.tflite b.tflite c.tflite -t cortex-m7 -o out --dump d --json"
    assert main(line.split()) == 2
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert [result["model"] for result in document["results"]] == ["a.tflite", "c.tflite"]
    assert [error["model"] for error in document["errors"]] == ["b.tflite"]
    assert "error: b.tflite: Not a model." in captured.err
    outputs = [(call["output"], call["dump"]) for call in stand_in.calls]
    assert outputs == [(Path("out", name), Path("d", name)) for name in "abc"]


def test_compile_refuses_two_models_of_one_name(
    stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compile", "x/a.tflite", "y/a.tflite", "-t", "cortex-m7"]) == 2
    assert "x/a.tflite and y/a.tflite" in capsys.readouterr().err
    assert not stand_in.calls


def test_profile_prints_what_was_measured(
    stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in.answer = Measurement(
        device="virtual cortex-m7", label="emulated instructions", instructions=1234567,
        runs=3, stack_high_water_bytes=812,
        layers=(LayerMeasurement(index=0, name="conv[1]", ticks=300),
                LayerMeasurement(index=1, name="dense", ticks=100)),
    )  # fmt: skip
    line = "profile build/x --device virtual --runs 3 --warmup 0 --layers"
    assert main(line.split()) == 0
    called = stand_in.called
    assert called["positional"] == (Path("build/x"),)
    assert (called["device"], called["runs"], called["warmup"]) == ("virtual", 3, 0)
    assert called["layers"] is True
    out = capsys.readouterr().out
    assert "1,234,567" in out
    assert "conv[1]" in out
    assert "75.0 %" in out
    assert "emulated instructions, 3 runs" in out
    assert main(["profile", "build/x", "--json"]) == 0
    assert Measurement.from_json(capsys.readouterr().out) == stand_in.answer


def test_version_and_bare_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("edgecompress 0.")
    assert main([]) == 0
    assert "Usage: edgecompress" in capsys.readouterr().out


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for command in ("fit", "plan", "compile", "profile", "compare", "verify", "inspect", "explain",
                    "targets"):  # fmt: skip
        assert command in out


@pytest.mark.parametrize(
    "command", ["fit", "plan", "compile", "profile", "compare", "verify", "inspect", "explain"]
)
def test_every_command_takes_json_and_debug(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert "--json" in out
    assert "--debug" in out


def test_streams_are_restored(stand_in: StandIn) -> None:
    before = sys.stdout
    stand_in.answer = errors.BadData("x.")
    main(["fit"])
    assert sys.stdout is before
