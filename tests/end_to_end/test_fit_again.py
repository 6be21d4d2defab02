"""A finished fit asked again: another budget, a limit on what may be lost, other people's code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import small_job

from edgecompress import api
from edgecompress.cli import main
from edgecompress.errors import BadInput, DoesNotFit
from edgecompress.flow import Job
from edgecompress.records import Plan, Result, StageScore
from edgecompress.reentry import read_asked
from edgecompress.rounds import _refuse_drop


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("again") / "out"
    api.fit(
        small_job.MODEL, data=small_job.DATA, target=small_job.TARGET, flash="21K", output=folder
    )
    return folder


@pytest.fixture
def folder(first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(first, tmp_path / "out"))


def test_the_result_says_how_the_plan_was_found(first: Path) -> None:
    result = Result.from_json((first / "result.json").read_bytes())
    assert len(result.front) >= 2
    assert sum(point.chosen for point in result.front) == 1
    assert [stage.stage for stage in result.ledger][::len(result.ledger) - 1] == [
        "source", "quantize",
    ]  # fmt: skip
    assert "top-1" in result.objective
    assert result.sensitivity[0].damage >= result.sensitivity[-1].damage > 0
    for point in result.front:
        saved = json.loads((first / "search" / point.plan).read_text())
        assert Plan.model_validate(saved["plan"]).predicted.flash_bytes == point.flash_bytes


def test_another_budget_uses_what_was_measured_and_judged(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--flash", "19K", "--data", small_job.DATA, "--output", "smaller", "--json"]
    assert main(["fit", small_job.MODEL, "--from", str(folder), *arguments]) == 0
    captured = capsys.readouterr()
    result = Result.model_validate(json.loads(captured.out))
    assert "already measured" in captured.err
    assert result.target == small_job.TARGET
    assert result.flash.used_bytes <= 19 * 1024
    before = Result.from_json((folder / "result.json").read_bytes())
    fitting = {point.plan for point in before.front if point.flash_bytes <= 19 * 1024}
    assert fitting <= {point.plan for point in result.front}


def test_code_a_file_names_is_not_run_unasked(folder: Path) -> None:
    with pytest.raises(BadInput, match="names Python code as its model"):
        read_asked(folder, given={}, trust=False)
    with pytest.raises(BadInput, match="as its data"):
        read_asked(folder, given={"model": small_job.MODEL}, trust=False)
    assert read_asked(folder, given={}, trust=True).model == small_job.MODEL


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_folder_without_a_search_is_one_clear_line(folder: Path, damage: str) -> None:
    path = folder / "search" / "job.json"
    path.unlink() if damage == "missing" else path.write_text("{")
    with pytest.raises(BadInput, match=damage):
        read_asked(folder, given={}, trust=True)


def job_with(allowed: float | None) -> Job:
    return Job("fit", None, None, None, None, 0, "fast", None, None, max_accuracy_drop=allowed)  # type: ignore[arg-type]


def test_a_drop_that_is_not_allowed_names_the_best_found() -> None:
    ledger = (
        StageScore(stage="source", value=94.0, divergence=0.0),
        StageScore(stage="quantize", value=92.25, divergence=0.1),
    )
    with pytest.raises(DoesNotFit) as caught:
        _refuse_drop(job_with(1.0), ledger)
    error = caught.value
    assert (error.resource, error.needed, error.limit) == ("accuracy", 175, 100)
    assert "loses 1.75 points" in str(error)
    assert "--max-accuracy-drop 1.8" in str(error)
    _refuse_drop(job_with(1.75), ledger)
    _refuse_drop(job_with(None), ledger)


def test_a_limit_on_the_drop_needs_labels(folder: Path, tmp_path: Path) -> None:
    import numpy as np

    np.savez(tmp_path / "bare.npz", x=small_job.data()["x"])
    with pytest.raises(BadInput, match="no labels"):
        api.fit(
            small_job.MODEL, data="bare.npz", target=small_job.TARGET, max_accuracy_drop=1.0,
            output=tmp_path / "limited",
        )  # fmt: skip
    assert not (tmp_path / "limited").exists()
