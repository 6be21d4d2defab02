"""`explain`: what a model would take and why, and what a finished result says of itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgecompress.cli import main
from edgecompress.errors import BadInput
from edgecompress.explaining import explain_model, read_result
from edgecompress.records import (
    Accuracy,
    FlashUse,
    RamUse,
    Result,
    Sensitivity,
    StageScore,
    Verification,
)

MODEL, DATA = "test_explaining:network", "test_explaining:data"


def network() -> nn.Module:
    """[N, 32] -> [N, 5] through 96 and 64 units."""
    torch.manual_seed(0)
    layers = [nn.Linear(32, 96), nn.ReLU(), nn.Linear(96, 64), nn.ReLU(), nn.Linear(64, 5)]
    return nn.Sequential(*layers).eval()


def data() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {"x": random.normal(size=(60, 32)).astype(np.float32), "y": np.arange(60) % 5}


def explained(**more):
    return explain_model(MODEL, target="cortex-m4", input_shape=(1, 32), **more)


def test_what_fits_is_said_to() -> None:
    found = explained()
    assert found.fits
    assert found.reason == ""
    assert found.heaviest[0].name == "layer_2"
    assert found.heaviest[0].size_bytes == 96 * 64 + 2 * 4 * 64
    assert found.live[0].size_bytes == 96
    assert found.sensitivity == ()


def test_ways_out_are_named_with_what_they_take() -> None:
    found = explained(flash=11_000)
    assert not found.fits
    ways = {way.change: way for way in found.ways}
    assert not ways["int8, every channel"].fits
    fitting = [way for way in found.ways if way.fits]
    assert fitting
    assert all(way.flash_bytes <= 11_000 for way in fitting)
    assert "chooses among these" in found.next_step


def test_why_nothing_fits_and_the_least_that_would() -> None:
    found = explained(flash=4_500, data=DATA)
    assert not any(way.fits for way in found.ways)
    assert "Even at its narrowest the model needs" in found.reason
    assert "least that fits: --flash" in found.next_step
    assert {item.layer for item in found.sensitivity} == {"layer_0", "layer_2", "layer_4"}
    damages = [item.damage for item in found.sensitivity]
    assert damages == sorted(damages, reverse=True)


def test_the_command_prints_both_forms(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["explain", MODEL, "--input-shape", "1,32", "-t", "cortex-m4", "--flash"]
    assert main([*asked, "11000"]) == 0
    shown = capsys.readouterr().out
    assert "network on cortex-m4: does not fit as int8 (predicted)" in shown
    assert main([*asked, "4500", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["reason"].startswith("Even at its narrowest")


def result(used: int) -> Result:
    return Result(
        command="fit", model="net", target="cortex-m4", fits=used <= 1_000, accuracy=Accuracy(),
        flash=FlashUse(used_bytes=used, budget_bytes=1_000, predicted_bytes=None,
                       sections={"weights": 700, "runtime": used - 700}),
        ram=RamUse(used_bytes=50, budget_bytes=None, predicted_bytes=None, parts={"arena": 50}),
        verified=Verification(exact=True, layers=1, samples=1, sides=()),
        ledger=(StageScore(stage="source", value=93.0, divergence=0.0),
                StageScore(stage="prune", value=71.5, divergence=0.8),
                StageScore(stage="fine-tune", value=92.0, divergence=0.1)),
        sensitivity=(Sensitivity(layer="stem", change="8 of 16 channels", damage=0.5),),
    )  # fmt: skip


def test_a_result_names_its_dearest_stage(tmp_path: Path, capsys) -> None:
    (tmp_path / "result.json").write_text(result(990).to_json())
    assert main(["explain", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "Dearest stage: prune, 21.5 lost." in shown
    assert "stem" in shown


def test_a_result_over_budget_names_the_way_out(tmp_path: Path, capsys) -> None:
    (tmp_path / "result.json").write_text(result(1_500).to_json())
    assert main(["explain", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert "500 B over" in shown
    assert "Cheapest way out: --flash 2K" in shown


def test_a_folder_without_a_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no result to explain"):
        read_result(tmp_path)
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(BadInput, match="is not the result"):
        read_result(tmp_path)
