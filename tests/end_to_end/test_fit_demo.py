"""The main job as a newcomer runs it: one command, one image, every promise looked at."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile

pytestmark = pytest.mark.slow

MIB = 1024**2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("demo") / "out"
    command = [sys.executable, "-m", "edgecompress", "fit", "--target", "cortex-m7"]
    done = subprocess.run(
        [*command, "--json", "--output", str(where)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (where.parent / "stdout.json").write_text(done.stdout)
    return where


@pytest.fixture(scope="module")
def result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def test_stdout_is_the_result_and_nothing_else(folder: Path, result: dict) -> None:
    assert json.loads((folder.parent / "stdout.json").read_text()) == result


def test_int8_alone_would_not_fit_and_the_planner_acted(result: dict) -> None:
    assert any(result["plan"][kind] for kind in ("widths", "low_rank", "weights"))
    assert result["fits"] is True
    assert result["flash"]["used_bytes"] <= result["flash"]["budget_bytes"] == MIB
    assert result["ram"]["used_bytes"] <= result["ram"]["budget_bytes"] == 320 * 1024


def test_the_prediction_is_within_two_percent_of_the_linked_image(result: dict) -> None:
    for memory in ("flash", "ram"):
        used, predicted = (result[memory][key] for key in ("used_bytes", "predicted_bytes"))
        assert abs(predicted - used) <= 0.02 * used, (memory, predicted, used)


def test_accuracy_is_within_a_point_and_a_half_of_the_float_model(result: dict) -> None:
    accuracy = result["accuracy"]
    assert accuracy["samples"]["deployed"] >= 500
    assert accuracy["deployed"] >= accuracy["source"] - 1.5
    assert accuracy["samples"]["device"] > 0
    assert accuracy["source"] > 90


def test_every_layer_is_integer_and_bit_exact_on_three_sides(result: dict) -> None:
    verified = result["verified"]
    assert verified["exact"] is True
    assert verified["layers"] == len(result["layers"]) > 10
    assert verified["samples"] >= 3
    assert len(verified["sides"]) == 3
    assert result["float_layers"] == []
    assert result["label"] == "emulated instructions"
    assert result["instructions"] > result["macs"] / 2


def test_flash_is_every_allocated_section_of_the_firmware(folder: Path, result: dict) -> None:
    """Counted again from the ELF itself, by type and flag rather than by section name."""
    with (folder / "firmware.elf").open("rb") as file:
        allocated = sum(
            section["sh_size"]
            for section in ELFFile(file).iter_sections()
            if section["sh_flags"] & SH_FLAGS.SHF_ALLOC and section["sh_type"] != "SHT_NOBITS"
        )
    assert result["flash"]["used_bytes"] == pytest.approx(allocated, abs=64)
    assert (folder / "firmware.bin").stat().st_size == pytest.approx(allocated, abs=64)


def test_the_folder_holds_what_the_readme_says(folder: Path) -> None:
    for name in (
        "plan.json", "model.onnx", "image.json", "report.txt", "lib/libmodel.a", "lib/model.h",
        "firmware.elf", "firmware.bin", "firmware.hex",
    ):  # fmt: skip
        assert (folder / name).stat().st_size > 0, name


def test_hashes_seeds_and_versions_are_recorded(result: dict) -> None:
    assert result["schema_version"] == 1
    assert {"source", "deployable", "firmware", "data"} <= set(result["hashes"])
    assert all(len(value) == 64 for value in result["hashes"].values())
    assert result["seeds"] == {"seed": 0}
    assert "apache-tvm" in result["versions"]


def test_profile_runs_the_same_image_again(folder: Path, result: dict) -> None:
    command = [sys.executable, "-m", "edgecompress", "profile", str(folder)]
    options = ["--device", "virtual", "--runs", "2", "--layers", "--json"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    measured = json.loads(done.stdout)
    assert measured["label"] == "emulated instructions"
    assert measured["instructions"] == pytest.approx(result["instructions"], rel=1e-3)
    assert len(measured["layers"]) == len(result["layers"])


def test_verify_finds_the_same_accuracy_on_the_device(folder: Path, result: dict) -> None:
    command = [sys.executable, "-m", "edgecompress", "verify", str(folder)]
    samples = str(result["accuracy"]["samples"]["device"])
    options = ["--device", "virtual", "--samples", samples, "--json"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["verification"]["exact"]
    assert found["verification"]["layers"] == len(result["layers"])
    assert found["device_accuracy"] == pytest.approx(result["accuracy"]["device"])


def test_the_host_never_needed_three_gigabytes(folder: Path) -> None:
    assert folder.exists()
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert peak_kib * 1024 < 3e9
