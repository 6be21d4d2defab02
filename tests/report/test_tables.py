from __future__ import annotations

from io import StringIO
from pathlib import Path

from report_samples import make_plan
from rich.console import Console, RenderableType

from edgecompress.model.inspect import Inspection, LayerInspection
from edgecompress.records import Budget
from edgecompress.report.tables import (
    inspection_table,
    plan_table,
)
from edgecompress.report.targets import checks_table, runs_on
from edgecompress.target import load_target


def text_of(renderable: RenderableType) -> str:
    console = Console(file=StringIO(), width=100, highlight=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def a_layer(name: str, *, live: int, fused: bool = False) -> LayerInspection:
    return LayerInspection(
        name=name, op="Conv2d", output_shape=(1, 16, 28, 28), macs=112_900,
        weight_bytes_float=832, weight_bytes_int8=208, live_bytes_int8=live, fused=fused,
    )  # fmt: skip


def test_inspection_lists_layers_with_buffers_and_marks_the_peak() -> None:
    seen = Inspection(
        name="net[1]", kind="float", hash="c" * 64, input_shape=(1, 1, 28, 28),
        output_shape=(1, 10),
        layers=(a_layer("stem", live=2048), a_layer("norm", live=2048, fused=True),
                a_layer("wide", live=4096)),
        macs=225_800, weight_bytes_float=2496, weight_bytes_int8=624, peak_step="wide",
        peak_live_bytes_int8=4096,
    )  # fmt: skip
    lines = text_of(inspection_table(seen)).splitlines()
    assert lines[0].rstrip() == "net[1] (float), 1×1×28×28 to 1×10"
    assert not any(line.startswith("norm") for line in lines)
    assert [line.split()[0] for line in lines if "peak" in line] == ["wide"]
    stem = next(line for line in lines if line.startswith("stem"))
    assert stem.split() == ["stem", "Conv2d", "1×16×28×28", "112.9", "k", "208", "B", "2.0", "KiB"]
    assert "4.0 KiB of int8 activations at wide" in text_of(inspection_table(seen))
    assert any(line.split()[:2] == ["Fused", "1,"] for line in lines)


def test_plan_shows_prediction_against_budget_and_every_choice() -> None:
    text = text_of(plan_table(make_plan(), folder=Path("out")))
    assert "900.0 KiB of 1.00 MiB (87.9 %)" in text
    assert "300.0 KiB of 320.0 KiB (93.8 %)" in text
    assert "stage3.conv1" in text
    assert "svd" in text
    assert "edgecompress fit --plan out/plan.json" in text


def test_plan_without_changes_or_budget_says_so() -> None:
    text = text_of(plan_table(make_plan(widths={}, low_rank={}, budget=Budget())))
    assert "int8 quantization alone is enough." in text
    assert "900.0 KiB" in text
    assert "%" not in text


def test_checks_are_counted() -> None:
    assert "1 target, all valid" in text_of(checks_table([("a", None)]))
    text = text_of(checks_table([("a", None), ("b", "its [key] is wrong")]))
    assert "2 targets, 1 wrong" in text
    assert "its [key] is wrong" in text


def test_where_images_run() -> None:
    assert runs_on(load_target("cortex-m4"))[0] == "virtual board"
    assert runs_on(load_target("x86-64")) == ["process"]
    assert runs_on(load_target("cuda-sm_90")) == ["compiled only"]
