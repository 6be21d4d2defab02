"""The planner bench's parts that need no training: data, rows, table, options."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edgecompress.target import load_target

BENCH = Path(__file__).resolve().parents[2] / "tools" / "bench"
ISSUE_FIELDS = {
    "dataset", "model", "budget", "method", "seed", "accuracy", "flash_bytes", "ram_bytes", "macs",
    "seconds", "fits",
}  # fmt: skip


@pytest.fixture(scope="module")
def planner() -> ModuleType:
    sys.path.insert(0, str(BENCH))
    try:
        return importlib.import_module("planner")
    finally:
        sys.path.remove(str(BENCH))


def row(planner: ModuleType, seed: int, accuracy: float, fits: bool = True) -> dict:
    from edgecompress.records import SizeReport

    size = SizeReport(flash_sections={"weights": 1000}, ram_parts={"arena": 500})
    linked = planner.Linked(size, 10_000, 20_000, accuracy, True)
    cell = planner.Cell("fsdd", "dscnn", seed, "fast", None, None, None, load_target("cortex-m4"))
    return planner.row_of(cell, "flash50", "planned", linked, fits, 12.0, None)


def test_rows_have_the_agreed_fields_and_survive_a_kill(planner, tmp_path) -> None:
    path = tmp_path / "deep" / "rows.jsonl"
    rows = planner.Rows(path)
    rows.add(row(planner, 0, 90.0))
    path.write_text(path.read_text() + '{"dataset": "fs')
    again = planner.Rows(path)
    assert len(again.rows) == 1
    assert set(again.rows[0]) >= ISSUE_FIELDS
    assert again.get(dataset="fsdd", budget="flash50", method="planned", seed=0) is not None
    assert again.get(dataset="fsdd", budget="flash50", method="planned", seed=1) is None


def test_rows_of_other_code_are_counted_apart(planner) -> None:
    rows = [row(planner, 0, 90.0), {**row(planner, 1, 91.0), "code": "0" * 16}]
    del (older := row(planner, 2, 92.0))["code"]
    assert planner.provenance([*rows, older]).startswith("1 of 3 rows ")


def test_the_code_version_follows_the_sources_alone(planner, tmp_path, monkeypatch) -> None:
    module = sys.modules["planner_rows"]
    monkeypatch.setattr(module, "_ROOT", tmp_path)
    (tmp_path / "edgecompress" / "plan").mkdir(parents=True)
    source = tmp_path / "edgecompress" / "plan" / "search.py"
    versions = []
    for text in ("one", "two", "one"):
        source.write_text(text)
        (tmp_path / "edgecompress" / f"{text}.pyc").write_text(text)
        versions.append(module.code_version.__wrapped__())
    assert versions[0] == versions[2] != versions[1]


@pytest.mark.parametrize(("cpu_seconds", "steps"), [(100.0, 90), (None, 7)])
def test_a_rivals_image_too_large_does_not_cost_it_its_training(
    planner, monkeypatch, cpu_seconds, steps
) -> None:
    """Finding takes 10 s, training 1 s a step; the first image is too large."""
    from edgecompress.records import Budget, Plan, Prediction, SizeReport

    clock, flash = [0.0], [2000, 900]
    empty = Plan(
        model_hash="m", data_hash="d", target="cortex-m4", budget=Budget(), seed=0, effort="fast",
        calibration_samples=1, finetune_steps=7,
        predicted=Prediction(flash_bytes=900, ram_bytes=1, macs=1),
    )  # fmt: skip

    def find(*_: object) -> object:
        clock[0] += 10.0
        return planner.argparse.Namespace(plan=empty, trials=())

    def build(_cell: object, plan: Plan) -> None:
        clock[0] += plan.finetune_steps

    def link(*_: object) -> object:
        size = SizeReport(flash_sections={"weights": flash.pop(0)}, ram_parts={"arena": 1})
        return planner.Linked(size, 1, 1, 90.0, True)

    for name, stand_in in (("find", find), ("build", build), ("link", link),
                           ("used_cpu_seconds", lambda: clock[0]),
                           ("steps_for", lambda _cell, _plan, left: int(left))):  # fmt: skip
        monkeypatch.setattr(planner, name, stand_in)
    cell = planner.Cell("fsdd", "dscnn", 0, "fast", None, None, None, load_target("cortex-m4"))
    plan, _, linked, spent = planner.fitted(cell, Budget(flash_bytes=1000), None, cpu_seconds)
    assert linked.size.flash_bytes == 900
    assert plan.finetune_steps == steps
    assert spent == (100.0 if cpu_seconds is not None else 2 * (10.0 + 7))


def test_the_table_gives_mean_and_spread(planner) -> None:
    text = planner.table([row(planner, 0, 90.0), row(planner, 1, 92.5, fits=False)])
    (line,) = text.splitlines()[1:]
    assert "91.25" in line
    assert "2.50" in line
    assert "NO" in line


def test_planned_is_paired_with_its_rival_of_the_same_seed(planner) -> None:
    rows = []
    for seed, (ours, theirs) in enumerate(((91.0, 90.0), (89.5, 89.7))):
        rival = {**row(planner, seed, theirs), "method": "uniform-int8", "flash_bytes": 2000}
        rows += [row(planner, seed, ours), rival]
    rows.append({**row(planner, 2, 50.0), "method": "uniform-int8"})
    line = next(line for line in planner.paired(rows).splitlines() if "fsdd" in line)
    assert line.split()[-6:] == ["+0.40", "-0.20", "+1.00", "-50%", "-0%", "2"]


def test_unknown_names_are_refused(planner, capsys) -> None:
    with pytest.raises(SystemExit):
        planner.parse(["--datasets", "imagenet"])
    assert "imagenet" in capsys.readouterr().err
    assert planner.parse(["--seeds", "0,2"]).seeds == [0, 2]


def test_a_latency_budget_allows_the_macs_it_was_made_for(planner) -> None:
    from edgecompress.plan.candidates import Problem
    from edgecompress.records import Budget

    profile = load_target("cortex-m4")
    budget = Budget(latency_us=planner.latency_of(profile, 1_000_000))
    limit = Problem(None, profile, budget, {}).macs_limit()
    assert 1_000_000 <= limit < 1_000_100


def test_mfcc_tells_a_low_tone_from_a_high_one(planner) -> None:
    data = planner.planner_data
    time = np.arange(8000) / 8000
    low, high = (data.mfcc(np.sin(2 * np.pi * hertz * time)) for hertz in (300, 3000))
    assert low.shape == (49, 10)
    assert low[:, 1].mean() > high[:, 1].mean()
    assert np.isfinite(data.mfcc(np.zeros(100, np.float32))).all()
    assert data.mel_filters().sum(0)[3:-3].min() > 0


@pytest.mark.parametrize("name", ["fsdd", "hapt"])
def test_splits_follow_the_official_ones(planner, shared_data, name, monkeypatch) -> None:
    monkeypatch.setenv("EDGECOMPRESS_DATA", str(shared_data))
    splits = planner.planner_data.load(name)
    shape = {"fsdd": (1, 49, 10), "hapt": (6, 1, 128)}[name]
    assert splits.train.x.shape[1:] == splits.test.x.shape[1:] == shape
    assert len(splits.train) > len(splits.test) > 0
    assert set(np.unique(splits.test.y)) <= set(np.unique(splits.train.y))
    if name == "fsdd":
        assert len(splits.test) == 300


@pytest.mark.parametrize(
    ("name", "shape"),
    [("resnet8", (3, 32, 32)), ("resnet8", (6, 1, 128)), ("dscnn", (1, 49, 10)),
     ("dscnn", (6, 1, 128)), ("dscnn", (1, 28, 28)), ("dscnn-wide", (1, 49, 10)),
     ("dscnn-wide", (6, 1, 128))],
)  # fmt: skip
def test_every_network_takes_every_shape(planner, name, shape) -> None:
    import torch

    net = planner.planner_models.make(name, shape, 10).eval()
    assert net(torch.zeros(2, *shape)).shape == (2, 10)
