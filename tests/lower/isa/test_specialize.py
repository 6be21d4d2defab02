"""The device program: what the joint choice keeps, and that the image runs it bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from chain import chain
from conv_cases import added, convolution

from edgecompress.device.harness import open_device
from edgecompress.errors import BuildFailed
from edgecompress.link.image import build_image
from edgecompress.lower.isa.dsp.asm import routine
from edgecompress.lower.isa.interface import Cost, Implementation
from edgecompress.lower.kernels.conv2d import Window
from edgecompress.lower.passes.specialize import choose, install, specialize
from edgecompress.lower.passes.specification import check_placed
from edgecompress.lower.program import Program
from edgecompress.target import load_target
from edgecompress.verify.compare import verify
from edgecompress.verify.host import HostModel

SAME = (1, 1, 1, 1)


@pytest.fixture(scope="module")
def program() -> Program:
    """Widen, convolve, convolve and add, LiteRT's rounding (no generator takes it), pointwise."""
    small, wide = Window((1, 9, 7, 4), (3, 3), (1, 1), SAME), (1, 9, 7, 8)
    block = Window(wide, (3, 3), (1, 1), SAME)
    return chain(
        [
            convolution(small, 8, seed=1),
            convolution(block, 8, seed=2),
            added(convolution(block, 8, seed=3)),
            convolution(replace(block, strides=(2, 2)), 8, seed=4, form="double"),
            convolution(Window((1, 5, 4, 8), (1, 1)), 6, seed=5),
        ]
    )


@pytest.mark.parametrize("optimize", ["size", "balanced", "speed"])
def test_steps_stay_and_code_is_exchanged(program, optimize):
    device = specialize(program, load_target("cortex-m4"), optimize)
    check_placed(device)
    assert [step.name for step in device.steps] == [step.name for step in program.steps]
    assert [bool(step.implementation) for step in device.steps] == [True, True, True, False, True]
    # the portable kernel that stayed is the only TIR left
    assert [var.name_hint for var in device.functions.get_global_vars()] == ["k_3"]
    routines = dict(device.assembly)
    assert all(step.function in routines for step in device.steps if step.implementation)
    for index, step in enumerate(device.steps):
        scratch = [item for item in step.arguments if item.kind == "scratch"]
        assert len(scratch) == bool(step.implementation)
        for item in scratch:
            buffer = device.buffers[item.name]
            assert (buffer.first_step, buffer.last_step) == (index, index)
    assert specialize(program, load_target("cortex-m4"), optimize).assembly == device.assembly


def test_a_core_without_kernels_of_its_own_keeps_thechain(program):
    device = specialize(program, load_target("cortex-m3"))
    assert device.assembly == ()
    assert [step.function for step in device.steps] == [step.function for step in program.steps]
    assert device.arena_bytes == program.arena_bytes


@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m7", "cortex-m33"])
def test_twin_host_and_device_agree(program, target, tmp_path: Path):
    profile = load_target(target)
    manifest = build_image(specialize(program, profile), profile, tmp_path, model_hash="ab" * 32)
    assert [bool(layer.implementation) for layer in manifest.layers] == [
        True, True, True, False, True
    ]  # fmt: skip
    samples = np.random.default_rng(0).integers(-128, 128, (2, *program.inputs[0].shape))
    with open_device(tmp_path, profile) as session:
        found = verify(program, HostModel(program), session, manifest, samples.astype(np.int8))
    assert found.exact
    assert found.sides == ("numpy twin", "host", "device")


def _offer(cycles: int, *routines: tuple[str, int], constant_bytes: int = 0) -> Implementation:
    """`routines` are (name, instructions)."""
    texts = {name: routine(name, ["nop"] * count) for name, count in routines}
    constants = (np.zeros(constant_bytes, np.int8),)
    return Implementation(
        routines[0][0], constants, Cost(cycles, cycles, 0), "a test", assembly=texts
    )


def _symbols(chosen: list[Implementation | None]) -> list[str]:
    return [item.symbol if item is not None else "" for item in chosen]


def test_a_routine_used_for_little_gain_is_dropped():
    fast, slow = ("fast", 200), ("slow", 200)
    offers = [
        [_offer(100_000, slow)],
        [_offer(1_000, fast), _offer(1_100, slow)],
        [],
    ]
    assert _symbols(choose(offers, "speed")) == ["slow", "fast", ""]
    assert _symbols(choose(offers, "balanced")) == ["slow", "slow", ""]
    worthwhile = [offers[0], [_offer(1_000, fast), _offer(31_000, slow)]]
    assert _symbols(choose(worthwhile, "balanced")) == ["slow", "fast"]
    assert _symbols(choose(worthwhile, "size")) == ["slow", "slow"]


def test_shared_code_counts_once_and_constants_each_time():
    large, small = ("large", 100), ("small", 50)
    one = [_offer(1_000, large), _offer(1_000, small, constant_bytes=300)]
    assert _symbols(choose([one] * 3, "size")) == ["large"] * 3


def test_two_routines_of_one_name_are_refused(program):
    chosen = [_offer(1, ("same", count)) for count in range(1, 6)]
    with pytest.raises(BuildFailed, match="named same"):
        install(program, chosen)
