"""The eight-channel tile of RV32: exact on any core, and on RV32 the faster one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chain import chain
from conv_cases import added, check, convolution, windows
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress.device.harness import open_device
from edgecompress.link.image import build_image
from edgecompress.lower.isa.rv32.generators import GENERATORS
from edgecompress.lower.kernels.conv2d import Window
from edgecompress.lower.passes.specialize import specialize
from edgecompress.target import load_target
from edgecompress.verify.compare import verify
from edgecompress.verify.host import HostModel


@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_any_window_gives_the_twins_bits_wherever_the_output_may_lie(data: Any) -> None:
    # the driver is plain TIR, so the guarded board of the Cortex-M runs it as well
    case = convolution(
        data.draw(windows(data.draw(st.sampled_from([1, 3, 8])))),
        data.draw(st.sampled_from([8, 16, 24])),
        seed=data.draw(st.integers(0, 999)),
        bounds=data.draw(st.sampled_from([(-128, 127), (3, 100)])),
        extreme=data.draw(st.booleans()),
        form=data.draw(st.sampled_from(["smmla", "double"])),
    )
    if data.draw(st.booleans()):
        case = added(case)
    (offers,) = check([case], GENERATORS, "cortex-m3")
    assert len(offers) == 1


@pytest.mark.parametrize(("outputs", "groups"), [(12, 1), (16, 2)])
def test_other_widths_and_groups_are_refused(outputs: int, groups: int) -> None:
    case = convolution(Window((1, 4, 4, 8), (1, 1)), outputs, groups=groups)
    assert GENERATORS[0].implement(case.kernel, case.constants) == []


def test_it_runs_exactly_and_faster_on_the_board(tmp_path: Path) -> None:
    profile = load_target("rv32imc")
    window = Window((1, 6, 6, 16), (3, 3), (1, 1), (1, 1, 1, 1))
    program = chain([convolution(window, 16), convolution(window, 16, seed=1)])
    x = np.random.default_rng(2).integers(-128, 128, (2, 1, 6, 6, 16)).astype(np.int8)
    instructions = []
    for name, made in (("tir", program), ("wide", specialize(program, profile))):
        manifest = build_image(made, profile, tmp_path / name, model_hash="ab" * 32)
        with open_device(tmp_path / name, profile) as session:
            result = verify(program, HostModel(program), session, manifest, x)
            assert result.exact
            counted = session.measure(x[0]).instructions
        assert counted is not None
        instructions.append(counted)
    assert instructions[1] < 0.9 * instructions[0]
