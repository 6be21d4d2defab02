"""Encoded weights read by the portable kernels: exact on any core, and smaller in the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from board import Board
from chain import chain
from conv_cases import Case, added, convolution, windows
from hypothesis import given, settings
from hypothesis import strategies as st
from test_dsp_decoded import dense_case, stored

from edgecompress.device.harness import open_device
from edgecompress.link.image import build_image
from edgecompress.lower.isa.interface import Implementation
from edgecompress.lower.isa.scalar.generators import ENCODED
from edgecompress.lower.kernels.conv2d import Window
from edgecompress.lower.passes.choice import choose
from edgecompress.lower.passes.specialize import specialize
from edgecompress.target import load_target
from edgecompress.verify.compare import verify
from edgecompress.verify.host import HostModel

CODECS = ["packed4", "lut16", "lut4"]


def check(case: Case, codec: str, isa: str) -> None:
    """The offers of a codec give the twin's bits, also where the output may lie over the input.

    The drivers are plain TIR, so the guarded board of the Cortex-M runs those of any core.
    """
    case = stored(case, codec)
    (generator,) = ENCODED[isa]
    offers = [o for o in generator.implement(case.kernel, case.constants) if o.codec == codec]
    assert len(offers) == 1
    board = Board(offers, "cortex-m3")
    expected = case.expected
    outcome = board.run(0, case.activations, expected.shape)
    np.testing.assert_array_equal(outcome.output, expected)
    if offers[0].may_overlap_input is not None:
        closest = min(offers[0].may_overlap_input, 0)
        outcome = board.run(0, case.activations, expected.shape, overlap=closest)
        np.testing.assert_array_equal(outcome.output, expected)


@settings(max_examples=10, deadline=None)
@given(data=st.data(), codec=st.sampled_from(CODECS), isa=st.sampled_from(sorted(ENCODED)))
def test_any_convolution(data, codec, isa):
    groups = data.draw(st.sampled_from([1, 1, 2]))
    case = convolution(
        data.draw(windows(groups * data.draw(st.sampled_from([1, 3, 8])))),
        groups * data.draw(st.sampled_from([4, 8, 12])),
        groups=groups,
        seed=data.draw(st.integers(0, 999)),
        form=data.draw(st.sampled_from(["smmla", "double"])),
    )
    if groups == 1 and data.draw(st.booleans()):
        case = added(case)
    check(case, codec, isa)


@settings(max_examples=6, deadline=None)
@given(
    inputs=st.integers(1, 40), outputs=st.sampled_from([4, 8, 20]), rows=st.sampled_from([1, 3]),
    codec=st.sampled_from(CODECS), isa=st.sampled_from(sorted(ENCODED)),
)  # fmt: skip
def test_any_dense(inputs, outputs, rows, codec, isa):
    check(dense_case(inputs, outputs, rows=rows), codec, isa)


def test_other_widths_and_wide_weights_are_refused():
    (generator,) = ENCODED["armv7-m"]
    window = Window((1, 4, 4, 8), (1, 1))
    odd, wide = stored(convolution(window, 6), "packed4"), convolution(window, 8)
    for case in (odd, wide):
        assert generator.implement(case.kernel, case.constants) == []


@pytest.mark.parametrize("target", ["cortex-m0plus", "rv32imc"])
def test_the_image_shrinks_and_stays_exact(target, tmp_path: Path):
    profile = load_target(target)
    window = Window((1, 5, 5, 16), (3, 3), (1, 1), (1, 1, 1, 1))
    cases = [stored(convolution(window, 16, seed=1), "packed4")]
    cases.append(stored(convolution(Window((1, 5, 5, 16), (1, 1)), 64, seed=2), "lut4"))
    program = chain(cases)
    device = specialize(program, profile, "size")
    assert [step.codec for step in device.steps] == ["packed4", "lut4"]
    assert device.steps[0].codec_saved_bytes == 16 * 144 // 2
    assert device.steps[1].codec_saved_bytes == 64 * 16 * 3 // 4 - 4
    assert device.arena_bytes <= specialize(program, profile, "speed").arena_bytes
    manifest = build_image(device, profile, tmp_path, model_hash="ab" * 32)
    x = np.random.default_rng(2).integers(-128, 128, (2, *program.inputs[0].shape))
    with open_device(tmp_path, profile) as session:
        assert verify(program, HostModel(program), session, manifest, x.astype(np.int8)).exact


def test_cheaper_layers_first():
    """Balanced, a layer that hardly runs is encoded and one that does all the work is not."""
    offers: list[list[Implementation]] = []
    (generator,) = ENCODED["armv7-m"]
    for case in (convolution(Window((1, 24, 24, 8), (3, 3)), 8), dense_case(256, 32)):
        lut = stored(case, "lut16")
        offers.append(generator.implement(lut.kernel, lut.constants))
    chosen = [item.codec if item else "" for item in choose(offers, "balanced")]
    assert chosen == ["", "lut16"]
