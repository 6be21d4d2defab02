"""Candidates, stages and sensitive layers in the report."""

from __future__ import annotations

import pytest

from edgecompress.records import (
    Accuracy,
    FlashUse,
    ParetoPoint,
    RamUse,
    Result,
    Sensitivity,
    StageScore,
    Verification,
)
from edgecompress.report.text import report_text


def point(name: str, value: float | None, flash: int, **flags: bool) -> ParetoPoint:
    return ParetoPoint(
        name=name, metric="top-1 %", value=value, divergence=0.125, flash_bytes=flash,
        ram_bytes=4096, macs=1_000_000, steps=80, plan="trial-x.json",
        on_front=flags.get("on_front", False), chosen=flags.get("chosen", False),
    )  # fmt: skip


def result(**more) -> Result:
    return Result(
        command="fit", model="net", target="cortex-m4", fits=True, accuracy=Accuracy(),
        flash=FlashUse(used_bytes=1, budget_bytes=2, predicted_bytes=1, sections={}),
        ram=RamUse(used_bytes=1, budget_bytes=2, predicted_bytes=1, parts={}),
        verified=Verification(exact=True, layers=1, samples=1, sides=("twin", "host")), **more,
    )  # fmt: skip


def line_of(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.strip().startswith(start))


def test_candidates_with_the_chosen_one_and_the_front() -> None:
    text = report_text(result(front=(
        point("uniform", 90.5, 8192), point("joint", 91.25, 8192, on_front=True, chosen=True),
    )))  # fmt: skip
    assert line_of(text, "joint").split()[-2:] == ["chosen", "*"]
    assert "91.25" in line_of(text, "joint")
    assert "8.0 KiB" in line_of(text, "uniform")
    assert "80 steps" in text


def test_every_stage_says_what_it_cost() -> None:
    stages = (
        StageScore(stage="source", value=94.0, divergence=0.0),
        StageScore(stage="prune", value=81.5, divergence=0.4),
        StageScore(stage="fine-tune", value=93.75, divergence=0.02),
    )
    text = report_text(result(ledger=stages, objective="top-1 % on 1,000 validation samples"))
    assert "-12.50" in line_of(text, "pruned")
    assert "+12.25" in line_of(text, "fine-tuned")
    assert "Selected by" in text


def test_without_labels_the_divergence_is_shown_and_why() -> None:
    stages = (
        StageScore(stage="source", value=None, divergence=0.0),
        StageScore(stage="quantize", value=None, divergence=0.03125),
    )
    text = report_text(result(ledger=stages, objective="agreement with the source's outputs"))
    assert "0.0312" in line_of(text, "quantized")
    assert "agreement" in text


@pytest.mark.parametrize("count", [0, 1, 5])
def test_the_most_sensitive_layers_are_named(count: int) -> None:
    dear = tuple(Sensitivity(layer=f"conv{k}", change="int4", damage=1.0) for k in range(count))
    text = report_text(result(sensitivity=dear))
    assert ("Most sensitive" in text) == (count > 0)
    assert text.count("int4") == min(count, 3)
