"""Weights encoded in the image: fewer bytes of flash, and every layer still the twin's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from chain import chain
from conv_cases import Case, added, convolution

from edgecompress.device.harness import open_device
from edgecompress.link.image import build_image
from edgecompress.lower.isa.interface import Cost, Implementation
from edgecompress.lower.kernels.conv2d import Window
from edgecompress.lower.passes.specialize import choose, specialize
from edgecompress.lower.program import Program
from edgecompress.records import ImageManifest
from edgecompress.target import load_target
from edgecompress.verify.compare import verify
from edgecompress.verify.host import HostModel

SAME = (1, 1, 1, 1)


def rounded(case: Case, limit: int) -> Case:
    """Weights within [-limit, limit]."""
    weights, *rest = case.constants
    small = np.round(weights.astype(float) * limit / 127).astype(np.int8)
    return Case(case.kernel, case.activations, (small, *rest))


def network(limit: int) -> Program:
    block = Window((1, 8, 8, 16), (3, 3), (1, 1), SAME)
    cases = [
        convolution(Window((1, 8, 8, 8), (3, 3), (1, 1), SAME), 16, seed=1),
        convolution(block, 16, seed=2),
        added(convolution(block, 16, seed=3)),
        convolution(Window((1, 8, 8, 16), (1, 1)), 24, seed=4),
    ]
    return chain([rounded(case, limit) for case in cases])


def built(program: Program, target: str, optimize: str, folder: Path) -> ImageManifest:
    profile = load_target(target)
    image = specialize(program, profile, optimize)
    manifest = build_image(image, profile, folder, model_hash="ab" * 32)
    samples = np.random.default_rng(0).integers(-128, 128, (2, *program.inputs[0].shape))
    with open_device(folder, profile) as session:
        found = verify(program, HostModel(program), session, manifest, samples.astype(np.int8))
    assert found.exact
    return manifest


def test_four_bits_halve_the_weights(tmp_path: Path):
    program = network(7)
    packed = built(program, "cortex-m4", "size", tmp_path / "packed")
    plain = built(program, "cortex-m4", "speed", tmp_path / "plain")
    assert [layer.codec for layer in plain.layers] == [""] * 4
    assert [layer.codec for layer in packed.layers] == ["packed4"] * 4
    weights = [step.kernel.macs // 64 for step in program.steps]
    for small, large, count in zip(packed.layers, plain.layers, weights, strict=True):
        saved = large.constant_bytes - small.constant_bytes
        # a driver with a larger header may be the fastest for plain weights
        assert abs(saved - count // 2) <= 64
        assert abs(small.codec_saved_bytes - count // 2) <= 64
        assert small.codec_instructions > 0
    flash = packed.size.flash_sections["weights"], plain.size.flash_sections["weights"]
    assert flash[1] - flash[0] == pytest.approx(sum(weights) / 2, rel=0.05)


def test_wider_weights_stay_plain():
    device = specialize(network(9), load_target("cortex-m4"), "size")
    assert [step.codec for step in device.steps] == [""] * 4


def test_a_codec_is_taken_at_the_rate_of_the_goal():
    """Bytes of constants against cycles: "speed" never, "size" for little."""

    def offer(cycles: int, size: int, codec: str) -> Implementation:
        constants = (np.zeros(size, np.int8),)
        return Implementation(f"f_{codec}", constants, Cost(cycles, cycles, 0), "", codec=codec)

    def chosen(extra: int, saved: int, optimize: str) -> str:
        offers = [[offer(100_000, 2000, "")]]
        offers.append([offer(100_000, 9000, ""), offer(100_000 + extra, 9000 - saved, "packed4")])
        return choose(offers, optimize)[1].codec

    assert chosen(1, 8000, "speed") == ""
    assert chosen(-1, 8000, "speed") == "packed4"
    assert chosen(10_000, 8000, "balanced") == "packed4"
    assert chosen(10_000, 4000, "balanced") == ""
    assert chosen(10_000, 100, "size") == "packed4"
