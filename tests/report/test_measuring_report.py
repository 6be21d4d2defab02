"""What was measured, as a person reads it."""

from __future__ import annotations

from edgecompress.records import CycleEstimate, LayerMeasurement, Measurement
from edgecompress.report.measuring import measurement_table
from edgecompress.report.text import plain_text


def measured(*layers: LayerMeasurement, **changes: object) -> str:
    fields: dict[str, object] = {
        "device": "virtual cortex-m4", "label": "emulated instructions", "instructions": 4000,
        "layers": layers,
    }  # fmt: skip
    return plain_text(measurement_table(Measurement(**{**fields, **changes}), name="net"))  # type: ignore[arg-type]


def test_layers_show_share_work_and_which_fell_back() -> None:
    text = measured(
        LayerMeasurement(index=0, name="conv", ticks=3000, macs=2000, implementation="dsp conv"),
        LayerMeasurement(index=1, name="odd", ticks=1000, macs=0),
    )
    conv = next(line for line in text.splitlines() if " conv " in line)
    odd = next(line for line in text.splitlines() if " odd " in line)
    assert conv.split()[:6] == ["0", "conv", "3,000", "1.50", "75.0", "%"]
    assert conv.rstrip().endswith("dsp conv")
    assert odd.split()[:5] == ["1", "odd", "1,000", "25.0", "%"]
    assert odd.rstrip().endswith("generic (fallback)")


def test_an_image_of_generic_kernels_alone_has_no_code_column() -> None:
    text = measured(LayerMeasurement(index=0, name="conv", ticks=3000))
    assert "fallback" not in text
    assert "/MAC" not in text


def test_cycles_name_their_model() -> None:
    text = measured(words=5000, cycles=CycleEstimate(low=6000, high=7000, model="M7 range"))
    assert "6,000 to 7,000, an estimate by the M7 range" in text
    assert "5,000, each register" in text
    text = measured(cycles=CycleEstimate(low=6000, high=6000, model="M4 table"))
    assert "6,000, an estimate by the M4 table" in text


def test_an_emulator_without_an_honest_clock_gives_no_figure() -> None:
    assert "no figure" in measured(instructions=None)
    assert "no figure" not in measured()
