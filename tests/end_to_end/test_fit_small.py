"""Promises about runs rather than results: replay, resume, refusal, and a user's own files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_job
import torch
from elftools.elf.elffile import ELFFile

from edgecompress import api
from edgecompress.cli import main
from edgecompress.errors import BadInput, DoesNotFit
from edgecompress.progress import Silent
from edgecompress.records import Result


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit(output: str, **options) -> Result:
    given = {"data": small_job.DATA, "target": small_job.TARGET, "flash": small_job.FLASH}
    return api.fit(small_job.MODEL, output=Path(output), **(given | options))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "out"
    fit(str(folder))
    return folder


def result_of(folder: Path) -> Result:
    return Result.from_json((folder / "result.json").read_bytes())


def test_a_network_too_large_is_made_to_fit(fitted: Path) -> None:
    result = result_of(fitted)
    assert result.fits
    assert result.flash.used_bytes <= 20 * 1024
    assert result.plan is not None
    assert result.plan.widths or result.plan.low_rank or result.plan.weights
    assert result.accuracy.deployed > 80
    assert result.verified.exact


def test_everything_the_library_defines_begins_with_model(fitted: Path, tmp_path: Path) -> None:
    archive = fitted / "lib" / "libmodel.a"
    subprocess.run([sys.executable, "-m", "ziglang", "ar", "x", str(archive)], check=True)
    defined = set()
    for path in tmp_path.glob("*.o"):
        with path.open("rb") as file:
            symbols = ELFFile(file).get_section_by_name(".symtab").iter_symbols()
            defined |= {
                symbol.name
                for symbol in symbols
                if symbol["st_info"]["bind"] == "STB_GLOBAL" and symbol["st_shndx"] != "SHN_UNDEF"
            }
    assert len(defined) > 5
    assert all(name.startswith("model_") for name in defined), sorted(defined)


def test_a_plan_replays_to_the_same_bytes(fitted: Path) -> None:
    fit("again", plan=fitted / "plan.json")
    for name in ("plan.json", "model.onnx", "firmware.bin", "lib/libmodel.a"):
        assert Path("again", name).read_bytes() == (fitted / name).read_bytes(), name


def test_a_plan_for_another_model_is_refused(fitted: Path, tmp_path: Path) -> None:
    plan = json.loads((fitted / "plan.json").read_text())
    plan["model_hash"] = "0" * 64
    (tmp_path / "other.json").write_text(json.dumps(plan))
    with pytest.raises(BadInput, match="another model"):
        fit("again", plan=tmp_path / "other.json")


class InterruptedWhen(Silent):
    """Ctrl-C as soon as a stage begins."""

    def __init__(self, stage: str) -> None:
        self.awaited = stage
        self.notes: list[str] = []

    def stage(self, name: str, total: int | None = None) -> None:
        if name == self.awaited:
            raise KeyboardInterrupt

    def note(self, message: str) -> None:
        self.notes.append(message)


def test_an_interrupted_fit_resumes_and_ends_the_same(fitted: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit("out", progress=InterruptedWhen("Link the image"))
    assert not Path("out").exists()
    resumed = InterruptedWhen("never")
    fit("out", progress=resumed)
    assert any("plan was already made" in note for note in resumed.notes)
    assert any("already trained" in note for note in resumed.notes)
    assert Path("out/firmware.bin").read_bytes() == (fitted / "firmware.bin").read_bytes()
    assert [path.name for path in Path.cwd().iterdir()] == ["out"]


def test_a_budget_nothing_meets_names_itself(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["fit", small_job.MODEL, "--data", small_job.DATA, "--target", small_job.TARGET]
    assert main([*arguments, "--ram", "512", "--json"]) == 1
    captured = capsys.readouterr()
    error = json.loads(captured.out)["error"]
    assert error["resource"] == "ram"
    assert error["needed"] > error["limit"] == 512
    assert "512 B" in captured.err
    assert not Path("build").exists() or not any(Path("build").iterdir())


def test_an_image_slower_than_its_budget_does_not_fit(fitted: Path) -> None:
    result = api.compile_model(
        str(fitted / "model.onnx"), target=small_job.TARGET, latency_us=10.0, output=Path("slow")
    )
    assert not result.fits
    assert result.latency is not None
    assert result.latency.label == "estimate"
    assert result.latency.used_us > 10 == result.latency.budget_us
    assert result.latency.predicted_us == pytest.approx(result.latency.used_us, rel=0.3)
    assert "time over by" in (Path("slow") / "report.txt").read_text().splitlines()[0]


def test_flash_nothing_meets(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DoesNotFit, match="flash") as caught:
        fit("out", flash="5K")
    assert caught.value.limit == 5 * 1024 < caught.value.needed
    assert not Path("out").exists()


def test_a_users_onnx_and_npz(working_folder: Path) -> None:
    made = small_job.data()
    np.savez("calib.npz", x=made["x"])
    torch.onnx.export(
        small_job.model(), (torch.zeros(1, 1, 12, 12),), "net.onnx", dynamo=False, verbose=False
    )
    result = api.fit("net.onnx", data="calib.npz", target="cortex-m7")
    assert result.plan is not None
    assert not result.plan.widths
    assert "agreement" in result.accuracy.metric
    assert result.accuracy.deployed > 90
    assert Path("build/net-cortex-m7/firmware.elf").exists()


def test_a_users_pt2(working_folder: Path) -> None:
    program = torch.export.export(small_job.model(), (torch.zeros(1, 1, 12, 12),))
    torch.export.save(program, "net.pt2")
    result = api.fit("net.pt2", data=small_job.DATA, target="cortex-m0plus")
    assert result.verified.exact
    assert result.accuracy.metric == "top-1 %"


@pytest.mark.parametrize("target", ["x86-64", "aarch64"])
@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_hosts_by_the_same_command(target: str, precision: str) -> None:
    result = fit("out", target=target, flash=None, precision=precision)
    assert Path("out/firmware").stat().st_size > 0
    assert result.fits
    assert result.against_source is not None
    assert result.against_source.top1_agreement_percent > 95
    if precision == "int8":
        assert result.verified.exact
        assert result.float_layers == ()
    else:
        assert result.against_source.max_abs_error < 1e-2
    if target == "x86-64":
        assert result.label == "measured on device"
        assert result.latency_us > 0


def test_the_optimization_goal_is_chosen_recorded_and_its_trade_shown(fitted: Path) -> None:
    model = str(fitted / "model.onnx")
    results = {
        goal: api.compile_model(model, target="cortex-m4", optimize=goal, output=Path(goal))
        for goal in ("size", "speed")
    }
    for goal, result in results.items():
        assert result.verified.exact
        assert result.optimize == goal
        assert f"{goal}; predicted for" in Path(goal, "report.txt").read_text()
    trades = {trade.optimize: trade for trade in results["size"].trades}
    assert trades["size"].instructions >= trades["balanced"].instructions
    assert trades["balanced"].instructions >= trades["speed"].instructions
    assert trades["size"].code_bytes <= trades["speed"].code_bytes
    assert results["size"].instructions >= results["speed"].instructions


def test_a_board_runs_its_own_image_over_its_own_registers(fitted: Path) -> None:
    result = api.compile_model(str(fitted / "model.onnx"), target="stm32h743zi", output=Path("out"))
    assert result.fits
    assert result.verified.exact
    assert (result.device, result.label) == ("virtual stm32h743zi", "emulated instructions")
    assert {use.name: use.kind for use in result.regions}["DTCM"] == "ram"


@pytest.mark.parametrize("name", ["ic", "kws", "ad"])
def test_mlperf_tiny_models_run_without_a_float_kernel(shared_data: Path, name: str) -> None:
    model = shared_data / "mlperf_tiny" / f"{name}_int8.tflite"
    result = api.compile_model(str(model), target="cortex-m7", output=Path("out"))
    assert result.fits
    assert result.verified.exact
    assert result.float_layers == ()
    assert result.instructions > 0
