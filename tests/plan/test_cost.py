from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgecompress.compress.groups import find_groups
from edgecompress.compress.lowrank import factorize
from edgecompress.compress.prune import prune
from edgecompress.compress.quantize import quantize
from edgecompress.lower.pipeline import lower
from edgecompress.plan.code_size import code_table
from edgecompress.plan.cost import corrections_from, evaluate, predict
from edgecompress.plan.network import read_network
from edgecompress.records import LowRank, SizeReport
from edgecompress.target import load_target

PROFILE = load_target("cortex-m7")


def test_steps_are_those_lowering_makes(residual):
    steps = [(step.name, step.op) for step in read_network(residual).steps]
    assert steps == [
        ("stem", "conv2d"),
        ("conv1", "conv2d"),
        ("conv2", "conv2d"),
        ("add", "add"),
        ("pool", "mean"),
        ("head", "dense"),
    ]


def test_hand_computed_sizes(residual):
    found = predict(residual, PROFILE)
    # weights on 16 bytes, int32 bias and multiplier a channel, each on 16 bytes
    stem = 80 + 32 + 32  # 72 weights
    conv1 = 9 * 8 * 16 + 64 + 64
    conv2 = 9 * 16 * 8 + 32 + 32
    head = 32 + 16 + 16  # 24 weights, 3 channels
    assert found.flash_parts["weights"] == stem + conv1 + conv2 + head
    # conv2 reads conv1 (16 x 64) and writes its sums over the stem's 8 x 64
    assert found.ram_parts["arena"] == 64 * (8 + 16)
    assert found.peak_step == "conv1"
    assert found.ram_parts["io"] == 0
    assert found.macs == 64 * (72 + 9 * 8 * 16 * 2 + 8) + 24
    assert found.flash_bytes == sum(found.flash_parts.values())
    assert found.ram_bytes == sum(found.ram_parts.values())


def test_flatten_costs_nothing_and_multiplies_the_dense_layer(as_trainable):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4, 2))
    network = read_network(as_trainable(net, (1, 1, 4, 4)))
    assert [step.op for step in network.steps] == ["conv2d", "dense"]
    assert network.tensors[network.steps[1].inputs[0]].channels({}) == 16
    assert predict(as_trainable(net, (1, 1, 4, 4)), PROFILE).ram_parts["arena"] == 16 + 16


def test_the_arena_is_that_of_the_compiled_program(residual):
    """What the planner counts, the compiler places, but for what kernels save beyond it."""
    program = lower(quantize(residual, np.zeros((4, 1, 8, 8), np.float32), name="r"),
                    name="r", profile=PROFILE)  # fmt: skip
    assert [step.op for step in program.steps][:3] == ["conv2d", "conv2d", "conv2d_add"]
    found = predict(residual, PROFILE).ram_parts["arena"]
    assert found * 0.9 <= program.arena_bytes <= found


def test_concat_and_standalone_relu_are_steps(as_trainable):
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Conv2d(1, 4, 1), nn.Conv2d(1, 6, 1)
            self.relu = nn.ReLU()
            self.last = nn.Conv2d(10, 2, 1)

        def forward(self, x):
            return self.last(self.relu(torch.cat([self.left(x), self.right(x)], 1)))

    trainable = as_trainable(Branches(), (1, 1, 4, 4))
    network = read_network(trainable, find_groups(trainable))
    assert [step.op for step in network.steps] == [
        "conv2d", "conv2d", "concat", "lookup", "conv2d",
    ]  # fmt: skip
    assert network.tensors["relu"].channels({"left": 2}) == 8


@pytest.mark.parametrize("widths", [{"stem": 4}, {"conv1": 8}, {"stem": 4, "conv1": 12}])
def test_evaluating_widths_equals_predicting_the_pruned_model(residual, widths):
    network = read_network(residual, find_groups(residual))
    assert evaluate(network, PROFILE, widths) == predict(prune(residual, widths), PROFILE)


def test_evaluating_ranks_equals_predicting_the_factorized_model(residual):
    choice = {
        "conv1": LowRank(method="tucker2", ranks=(4, 6)),
        "head": LowRank(method="svd", ranks=(2,)),
    }
    expected = predict(factorize(residual, choice), PROFILE)
    found = evaluate(read_network(residual), PROFILE, {}, choice)
    assert found.flash_parts == expected.flash_parts
    assert found.ram_parts == expected.ram_parts
    assert found.macs == expected.macs


def test_corrections_reproduce_the_measured_image(residual):
    first = predict(residual, PROFILE)
    flash = {**first.flash_parts, "kernels": 5000, "runtime": 7000}
    ram = {**first.ram_parts, "stack": 900}
    measured = SizeReport(flash_sections=flash, ram_parts=ram)
    corrections = corrections_from(first, measured)
    second = predict(residual, PROFILE, corrections)
    assert (second.flash_parts, second.ram_parts) == (flash, ram)
    third = corrections_from(second, measured, corrections)
    assert third == pytest.approx(corrections)


@pytest.mark.parametrize("name", ["cortex-m0plus", "cortex-m4", "cortex-m55", "x86-64"])
def test_every_family_has_a_table_with_its_source(name):
    table = code_table(load_target(name))
    assert table.source
    assert table.kernel("conv2d") > table.kernel("conv2d pointwise") > 0
