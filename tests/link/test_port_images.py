"""A model's image with the nrf, rp2 and esp32c3 ports: built, sized, and run to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sample_programs import int8_program

from edgecompress.device.harness import open_device
from edgecompress.link.image import build_image
from edgecompress.link.sizes import allocated_sections
from edgecompress.lower.program import Program
from edgecompress.target import load_target
from edgecompress.verify.compare import verify
from edgecompress.verify.host import HostModel


@pytest.fixture(scope="module")
def program() -> Program:
    return int8_program()


@pytest.fixture(scope="module")
def host(program: Program) -> HostModel:
    return HostModel(program)


@pytest.mark.parametrize(
    "target", ["nrf52840", "nrf5340", "rp2040", "rp2350", "rp2350-riscv", "esp32c3"]
)
def test_a_model_runs_to_the_bit_on_every_board(
    program: Program, host: HostModel, target: str, tmp_path: Path
) -> None:
    profile = load_target(target)
    manifest = build_image(program, profile, tmp_path, model_hash="ab" * 32)
    size = manifest.size
    assert size.flash_bytes == (tmp_path / "firmware.bin").stat().st_size
    loaded = [item for item in allocated_sections(tmp_path / "firmware.elf") if item.loaded]
    flash = profile.region("flash")
    ends = [item.load_address + item.size for item in loaded]
    assert max(ends) - flash.origin == size.flash_bytes
    assert (tmp_path / "firmware.uf2").is_file() == target.startswith("rp2")
    x = np.random.default_rng(2).integers(-128, 128, (3, 1, 96)).astype(np.int8)
    with open_device(tmp_path, profile) as session:
        assert verify(program, host, session, manifest, x).exact
        measured = session.measure(x[0])
    assert measured.stack_high_water_bytes is not None
    assert measured.stack_high_water_bytes < profile.stack_reserve
    assert measured.provenance is not None
    assert measured.provenance.clock_hz == profile.core.clock_hz
