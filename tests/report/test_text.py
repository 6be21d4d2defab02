from __future__ import annotations

from pathlib import Path

from report_samples import KIB, make_plan, make_result

from edgecompress.records import (
    Accuracy,
    Difference,
    FlashUse,
    LayerReport,
    RamUse,
    SourceComparison,
    TimeEstimate,
    Verification,
)
from edgecompress.report.text import REPORT_COLUMNS, report_text


def row_of(text: str, beginning: str) -> list[str]:
    return next(line for line in text.splitlines() if line.strip().startswith(beginning)).split()


def test_report_is_plain_and_at_most_a_hundred_columns_wide() -> None:
    long_name = "a_layer_with_a_very_long_name_" * 8
    text = report_text(make_result(float_layers=(long_name, "softmax")))
    assert "\x1b" not in text
    assert max(len(line) for line in text.splitlines()) <= REPORT_COLUMNS
    assert text.endswith("\n")


def test_flash_and_ram_stand_beside_budget_and_prediction() -> None:
    text = report_text(make_result())
    assert row_of(text, "Flash")[1:7] == ["909.0", "88.8", "%", "900.0", "+1.0", "%"]
    assert row_of(text, "weights") == ["weights", "850.0", "83.0", "%", "850.0"]
    assert "of 1.00 MiB" in text
    assert row_of(text, "arena") == ["arena", "298.0", "93.1", "%", "298.0"]
    assert row_of(text, "scratch")[1] == "0.0"
    assert row_of(text, "stack high-water")[2] == "1.0"


def test_banner_says_whether_it_fits_and_by_how_much_not() -> None:
    assert report_text(make_result()).startswith("demo on cortex-m7: FITS\n")
    over = FlashUse(used_bytes=1100 * KIB, budget_bytes=1024 * KIB, predicted_bytes=0, sections={})
    text = report_text(make_result(fits=False, flash=over))
    assert text.startswith("demo on cortex-m7: DOES NOT FIT (flash over by 76.0 KiB)\n")


def test_a_host_without_a_budget_says_so() -> None:
    flash = FlashUse(used_bytes=KIB, budget_bytes=None, predicted_bytes=KIB, sections={})
    ram = RamUse(used_bytes=KIB, budget_bytes=None, predicted_bytes=KIB, parts={})
    text = report_text(make_result(flash=flash, ram=ram))
    assert text.count("no stated limit") == 2


def test_accuracy_on_a_subset_is_not_compared_with_the_whole() -> None:
    text = report_text(make_result())
    assert row_of(text, "deployed, on host")[-3:] == ["91.10", "-0.40", "1,000"]
    assert row_of(text, "deployed, on device")[-3:] == ["90.00", "subset", "20"]


def test_no_accuracy_table_without_labels() -> None:
    assert "Accuracy" not in report_text(make_result(accuracy=Accuracy()))


def test_time_is_called_an_estimate_and_instructions_exact() -> None:
    text = " ".join(report_text(make_result()).split())
    assert "90.0 ms to 151.0 ms at 216 MHz: an estimate, not a measurement" in text
    assert "(a published ratio)" in text
    assert "32,612,345 instructions an inference (exact, emulated on virtual cortex-m7)" in text


def test_an_estimate_without_a_range_is_one_figure() -> None:
    estimate = TimeEstimate(low_us=90_000, high_us=90_000, clock_hz=120_000_000, source="a table")
    text = " ".join(report_text(make_result(time_estimate=estimate)).split())
    assert "90.0 ms at 120 MHz: an estimate, not a measurement (a table)" in text


def test_layers_no_kernel_of_the_core_takes_are_named() -> None:
    common = {
        "kernel": "k", "output_shape": (1, 8), "output_dtype": "int8", "location": "arena",
        "offset_bytes": 0, "size_bytes": 8, "macs": 0, "is_float": False,
    }  # fmt: skip
    fast = LayerReport(index=0, name="conv", implementation="dsp conv", **common)  # type: ignore[arg-type]
    plain = LayerReport(index=1, name="odd_one", **common)  # type: ignore[arg-type]
    text = report_text(make_result(layers=(fast, plain)))
    assert row_of(text, "Fallback")[1:3] == ["1:", "odd_one:"]
    assert "Fallback" not in report_text(make_result(layers=(plain,)))
    assert "Fallback" not in report_text(make_result(layers=(fast,)))


def test_a_measured_time_is_not_called_an_estimate() -> None:
    result = make_result(
        label="measured on device", latency_us=870.0, instructions=None, time_estimate=None
    )
    text = report_text(result)
    assert "870 us an inference, measured" in text
    assert "estimate" not in text


def test_what_only_compiled_says_it_did_not_run() -> None:
    result = make_result(
        label="compiled, not run",
        instructions=None,
        time_estimate=None,
        verified=Verification(exact=False, layers=0, samples=0, sides=()),
    )
    text = report_text(result)
    assert row_of(text, "Time")[1:] == ["compiled,", "not", "run"]
    assert row_of(text, "Verified")[1:] == ["not", "run"]


def test_verification_names_sides_and_counts() -> None:
    text = report_text(make_result())
    assert "bit-exact: numpy twin = host = device, 31 layers × 3 samples" in text


def test_first_difference_is_named_with_both_values() -> None:
    verified = Verification(
        exact=False,
        layers=3,
        samples=1,
        sides=("host", "device"),
        first_difference=Difference(
            layer="conv_2", element=(0, 1, 2, 3), sides=("host", "device"), values=(4, -7)
        ),
    )
    text = report_text(make_result(verified=verified))
    assert "differs first at conv_2 element [0, 1, 2, 3]: host 4 and device -7" in text


def test_float_rounding_is_called_by_its_name() -> None:
    verified = Verification(
        exact=False, layers=3, samples=2, sides=("host", "device"), tolerance=1e-5
    )
    text = " ".join(report_text(make_result(verified=verified)).split())
    assert "float layers within 1e-05 of their largest value: host = device" in text
    assert "bit-exact" not in text


def test_float_layers_are_listed_and_long_lists_cut() -> None:
    names = tuple(f"layer_{index}" for index in range(11))
    text = " ".join(report_text(make_result(float_layers=names)).split())
    assert "11: layer_0, layer_1" in text
    assert "layer_7 and 3 more" in text
    assert "Float layers" not in report_text(make_result())


def test_comparison_with_the_source_model_is_shown() -> None:
    compared = SourceComparison(
        reference="ONNX Runtime",
        samples=1,
        max_abs_error=0.5,
        mean_abs_error=0.012,
        top1_agreement_percent=99.0,
    )
    text = " ".join(report_text(make_result(against_source=compared)).split())
    assert "differ from ONNX Runtime by 0.012 on average, 0.5 at most (1 sample)" in text
    assert "same top-1 on 99.0 %" in text


def test_equal_outputs_are_called_equal() -> None:
    compared = SourceComparison(
        reference="LiteRT", samples=1000, max_abs_error=0.0, mean_abs_error=0.0
    )
    text = report_text(make_result(against_source=compared))
    assert "outputs equal those of LiteRT (1,000 samples)" in text


def test_plan_line_counts_what_was_done() -> None:
    text = " ".join(report_text(make_result()).split())
    assert "int8, 2 channel groups narrowed, 1 layer factorized, 120 fine-tuning steps" in text
    assert "120 s in all" in text
    plain = make_plan(widths={}, low_rank={}, finetune_steps=0)
    assert "int8 (seed 0, effort fast)" in report_text(make_result(plan=plain))


def test_brackets_in_names_are_text_not_markup() -> None:
    result = make_result(
        float_layers=("[bold]layer[/bold]",), notes=("[red]look[/red]",), model="net[1]"
    )
    text = report_text(result)
    assert "[bold]layer[/bold]" in text
    assert "[red]look[/red]" in text
    assert text.startswith("net[1] on")


def test_files_are_named_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "firmware.elf").write_bytes(b"")
    (tmp_path / "lib").mkdir()
    joined = report_text(make_result(), folder=tmp_path).replace("\n", "").replace(" ", "")
    assert "firmware.elf,lib/" in joined
