"""Layers in horizontal stripes: the same numbers on twin, host and board, in less memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from qdq_model import QdqBuilder

from edgecompress.deploy import Deployed, DeployOptions, deploy
from edgecompress.lower import twin
from edgecompress.lower.memory.overlap import stripe_allowances
from edgecompress.lower.passes.patch import (
    CannotStripe,
    Stage,
    arena_limit_bytes,
    least_memory,
    patch_offer,
    patch_to_fit,
    patched,
)
from edgecompress.lower.passes.patch.choose import BESIDE_ARENA_BYTES
from edgecompress.lower.passes.patch.stage import divided, stripe_counts
from edgecompress.lower.passes.specialize import specialize
from edgecompress.lower.passes.specification import check_placed
from edgecompress.lower.pipeline import lower
from edgecompress.lower.program import Program
from edgecompress.progress import SILENT
from edgecompress.target import load_target
from edgecompress.verify.host import HostModel

# the scale and zero point of every map: a maximum must keep its input's
QUANTIZED = (0.05, -3)
LAYERS = ("conv", "depthwise", "residual", "max", "average", "sigmoid")


@dataclass
class Network:
    """A QDQ model grown layer by layer; every map is [1, channels, height, width]."""

    height: int
    width: int
    channels: int
    build: QdqBuilder = field(default_factory=lambda: QdqBuilder(3))
    count: int = 0

    def __post_init__(self) -> None:
        self.shape = [1, self.channels, self.height, self.width]
        self.at = self.build.wire("input", *QUANTIZED, "x")

    def layer(self, kind: str, size: int, stride: int, padded: bool) -> None:
        """A layer of a kind; one that would leave no rows is left out."""
        pad = size // 2 if padded else 0
        tall, wide = ((n + 2 * pad - size) // stride + 1 for n in (self.height, self.width))
        if min(tall, wide) < 1:
            return
        name, source = f"n{self.count}", self.at
        self.count += 1
        shape = {"kernel_shape": [size, size], "strides": [stride] * 2, "pads": [pad] * 4}
        if kind in ("conv", "depthwise", "residual"):
            groups = self.channels if kind == "depthwise" else 1
            outputs = self.channels if kind != "conv" else 4 * (1 + self.count % 3)
            weights = (outputs, self.channels // groups, size, size)
            constants = self.build.weights(name, weights, QUANTIZED[0])
            made = self.build.node("Conv", [source, *constants], f"{name}_c", group=groups, **shape)
            self.channels = outputs
        elif kind == "max":
            made = self.build.node("MaxPool", [source], f"{name}_c", **shape)
        elif kind == "average":
            made = self.build.node("AveragePool", [source], f"{name}_c", **shape)
        else:
            made, tall, wide = self.build.node("Sigmoid", [source], f"{name}_c"), *self.size
        if kind == "residual" and stride == 1 and padded:
            inner = self.build.wire(made, 0.06, 4, f"{name}_r")
            made = self.build.node("Add", [inner, source], f"{name}_a")
        self.height, self.width = tall, wide
        self.at = self.build.wire(made, *QUANTIZED, f"{name}_o")

    def expand(self, channels: int) -> None:
        """A pointwise convolution to more channels."""
        constants = self.build.weights("e", (channels, self.channels, 1, 1), QUANTIZED[0])
        made = self.build.node("Conv", [self.at, *constants], "e_c", kernel_shape=[1, 1])
        self.channels = channels
        self.at = self.build.wire(made, *QUANTIZED, "e_o")

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width

    def model(self) -> onnx.ModelProto:
        mean = self.build.wire(
            self.build.node("GlobalAveragePool", [self.at], "mean"), 0.03, -20, "m"
        )
        return self.build.model(self.shape, mean, [1, self.channels, 1, 1])


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Odd heights, strides of 1 and 2, kernels of 1, 3 and 5, with and without padding."""
    network = Network(draw(st.integers(5, 23)), draw(st.sampled_from([5, 8, 12])), 4)
    for _ in range(draw(st.integers(2, 5))):
        network.layer(
            draw(st.sampled_from(LAYERS)),
            draw(st.sampled_from([1, 3, 3, 5])),
            draw(st.sampled_from([1, 1, 2])),
            draw(st.booleans()),
        )
    return network


def lowered(model: onnx.ModelProto) -> Program:
    return lower(model, name="striped", profile=load_target("cortex-m4"))


def sample(program: Program, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.integers(-128, 128, program.inputs[0].shape).astype(np.int8)


def possible_stages(program: Program) -> list[Stage]:
    """Every stage that can be cut, in 2, 3 and as many stripes as it has rows."""
    found = []
    for first in range(len(program.steps)):
        for end in range(first + 1, len(program.steps)):
            height = program.buffers[program.steps[end - 1].output].shape[1]
            for stripes in {2, 3, 4, height}:
                try:
                    divided(program, Stage(first, end, stripes))
                except CannotStripe:
                    continue
                found.append(Stage(first, end, stripes))
    return found


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks(), st.data())
def test_stages_of_random_networks_give_the_same_numbers(
    network: Network, data: st.DataObject
) -> None:
    program = lowered(network.model())
    x = sample(program)
    whole = twin.run(program, x)
    possible = possible_stages(program)
    assume(possible)
    for stage in data.draw(st.lists(st.sampled_from(possible), min_size=1, max_size=2)):
        striped = patched(program, stage)
        check_placed(striped)
        values = twin.run(striped, x)
        np.testing.assert_array_equal(values[striped.steps[-1].name], whole[program.steps[-1].name])
        last = program.steps[stage.end - 1].name
        parts = [values[f"{last}.patch{index}"] for index in range(stage.stripes)]
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole[last])


def bottleneck() -> onnx.ModelProto:
    """Few channels, many, few: what patches are for. A residual inside, an odd height."""
    network = Network(27, 16, 4)
    network.layer("residual", 3, 1, padded=True)
    network.expand(32)
    network.layer("depthwise", 5, 1, padded=True)
    network.layer("max", 3, 2, padded=False)
    network.layer("conv", 3, 2, padded=True)
    network.layer("sigmoid", 1, 1, padded=True)
    return network.model()


def test_host_and_twin_agree_on_every_stripe() -> None:
    program = lowered(bottleneck())
    assert [step.op for step in program.steps][:5] == [
        "conv2d_add", "conv2d", "depthwise_conv2d", "max_pool2d", "conv2d"
    ]  # fmt: skip
    x = sample(program)
    striped = patched(program, Stage(0, 5, 3))
    expected = twin.run(striped, x)
    host = HostModel(striped)
    for name, value in host.layers(x).items():
        np.testing.assert_array_equal(value, expected[name].reshape(value.shape), err_msg=name)
    whole = list(twin.run(program, x).values())[-1]
    np.testing.assert_array_equal(host.run(x).ravel(), whole.ravel())


def test_equal_stripes_share_a_function_and_all_share_their_weights() -> None:
    program = lowered(bottleneck())
    striped = patched(program, Stage(1, 3, 9))
    assert striped.constants is program.constants
    for layer in ("conv2d_1", "depthwise_conv2d_0"):
        used = [step.function for step in striped.steps if step.name.startswith(layer)]
        assert len(used) == 9
        assert len(set(used[1:-1])) == 1
        assert len(set(used)) <= 3  # at the upper border, inside, at the lower border
    assert set(used) == {
        variable.name_hint
        for variable in striped.functions.functions
        if "depthwise" in variable.name_hint
    }


def test_stripes_are_equal_but_for_the_last() -> None:
    assert stripe_counts(7) == [1, 2, 3, 4, 7]
    striped = patched(lowered(bottleneck()), Stage(0, 5, 3))
    rows = [
        striped.buffers[step.output].shape[1]
        for step in striped.steps
        if step.name.startswith("conv2d_2")
    ]
    assert rows == [3, 3, 1]


def test_rows_computed_twice_are_the_halo() -> None:
    """9 rows of a 5x5 depthwise kernel in 3 stripes: each of 2 borders costs 4 rows twice."""
    network = Network(9, 8, 4)
    network.expand(8)
    network.layer("depthwise", 5, 1, padded=True)
    program = lowered(network.model())
    striped = patched(program, Stage(0, 2, 3))
    rows = [
        striped.buffers[step.output].shape[1]
        for step in striped.steps
        if step.name.startswith("conv2d_0")
    ]
    assert rows == [5, 7, 5]
    assert striped.macs - program.macs == program.steps[0].macs * 8 // 9


def test_the_map_made_grows_over_the_map_it_is_made_from() -> None:
    program = lowered(bottleneck())
    striped = patched(program, Stage(1, 4, 13))
    entering, leaving = (striped.buffers[program.steps[at].output] for at in (0, 3))
    distance = stripe_allowances(striped)[entering.name, leaving.name]
    assert -leaving.size_bytes < distance < 0
    assert leaving.offset_bytes <= entering.offset_bytes + distance
    assert entering.offset_bytes < leaving.offset_bytes + leaving.size_bytes


def test_what_cannot_be_cut_says_why() -> None:
    program = lowered(bottleneck())
    last = len(program.steps)
    with pytest.raises(CannotStripe, match="has no stripes"):
        patched(program, Stage(0, last, 1))
    with pytest.raises(CannotStripe, match="7 rows do not make 8 stripes"):
        patched(program, Stage(0, 5, 8))
    once = patched(program, Stage(1, 3, 2))
    with pytest.raises(CannotStripe):
        patched(once, Stage(0, 3, 2))


def test_nothing_is_cut_while_it_fits() -> None:
    program, profile = lowered(bottleneck()), load_target("cortex-m4")
    fitted = patch_to_fit(program, profile)
    assert fitted.fits
    assert fitted.patches == ()
    assert fitted.program is program
    assert fitted.image_program.arena_bytes == specialize(program, profile).arena_bytes


def test_the_cheapest_stage_that_fits_is_taken() -> None:
    program, profile = lowered(bottleneck()), load_target("cortex-m4")
    whole = specialize(program, profile).arena_bytes
    limit = whole * 7 // 10 + BESIDE_ARENA_BYTES
    fitted = patch_to_fit(program, profile, limit)
    (patch,) = fitted.patches
    assert fitted.fits
    assert fitted.image_program.arena_bytes <= whole * 7 // 10
    assert (patch.arena_before_bytes, patch.arena_after_bytes) == (
        whole, fitted.image_program.arena_bytes
    )  # fmt: skip
    assert 0 <= patch.extra_macs_percent < 20
    check_placed(fitted.image_program)
    looser = patch_to_fit(program, profile, whole * 9 // 10 + BESIDE_ARENA_BYTES)
    assert looser.program.macs <= fitted.program.macs
    x = sample(program)
    expected, found = (list(twin.run(item, x).values())[-1] for item in (program, fitted.program))
    np.testing.assert_array_equal(expected, found)


def test_where_nothing_fits_the_nearest_stage_is_offered() -> None:
    program, profile = lowered(bottleneck()), load_target("cortex-m4")
    fitted = patch_to_fit(program, profile, 2048)
    assert not fitted.fits
    assert fitted.program is program
    nearest = least_memory(program, profile, 2048)
    assert nearest is not None
    assert 2048 < nearest.arena_after_bytes < nearest.arena_before_bytes
    assert f"in {nearest.stripes} stripes would bring the arena to" in patch_offer(nearest)


def test_the_limit_leaves_stack_and_variables_their_bytes() -> None:
    profile = load_target("cortex-m4")
    assert arena_limit_bytes(profile, 50_000) == 50_000 - BESIDE_ARENA_BYTES
    of_device = arena_limit_bytes(profile)
    assert of_device is not None
    assert profile.ram_bytes - 2 * profile.stack_reserve < of_device < profile.ram_bytes
    assert arena_limit_bytes(load_target("x86-64")) is None


@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m0plus"])
def test_the_board_is_exact_and_within_its_limit(target: str, tmp_path: Path) -> None:
    """Stripe by stripe on the device itself; a Cortex-M0+ knows no unaligned loads."""
    whole = deployed(bottleneck(), target, tmp_path / "whole", None)
    limit = whole.size.ram_bytes * 8 // 10
    found = deployed(bottleneck(), target, tmp_path / "striped", limit)
    assert found.verification.exact
    assert found.verification.layers == len(found.program.steps) > len(whole.program.steps)
    assert found.size.ram_bytes <= limit
    assert found.patches
    assert whole.measurement.instructions is not None
    assert found.measurement.instructions is not None
    assert found.measurement.instructions < 1.3 * whole.measurement.instructions


def deployed(model: onnx.ModelProto, target: str, folder: Path, limit: int | None) -> Deployed:
    return deploy(
        model, load_target(target), folder, name="striped", model_hash="0" * 64, samples=None,
        options=DeployOptions("virtual", ram_limit_bytes=limit), progress=SILENT,
    )  # fmt: skip
