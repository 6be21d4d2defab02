"""Strided 1x1 convolutions in channels-last order: the same results, and no heap overrun."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from edgecompress.compress.finetune.memory_order import channels_last, usual_order


@pytest.mark.parametrize("stride", [(2, 2), (2, 1), (3, 2)])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_sums_are_those_of_the_layer_itself(stride, groups) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(4, 6, 1, stride, groups=groups), nn.Conv2d(6, 6, 3, 2, 1))
    ordered = copy.deepcopy(plain)
    channels_last(ordered)
    x = torch.randn(5, 4, 13, 16, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    expected, made = plain(x), ordered(y)
    torch.testing.assert_close(made, expected)
    expected.square().sum().backward()
    made.square().sum().backward()
    torch.testing.assert_close(y.grad, x.grad)
    for one, other in zip(ordered.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_it_is_undone_and_survives_a_copy() -> None:
    layer = nn.Sequential(nn.Conv2d(4, 6, 1, 2))
    channels_last(layer)
    copied = copy.deepcopy(layer)
    assert "_conv_forward" in vars(copied[0])
    usual_order(copied)
    assert "_conv_forward" not in vars(copied[0])
    assert copied[0].weight.is_contiguous()


_PROGRAM = """
import torch
from torch import nn
from edgecompress.compress.finetune.memory_order import channels_last
layer = nn.Conv2d(5, 7, 1, 2)
channels_last(layer)
kept = []
for turn in range(12):
    x = torch.randn(64, 5, 16, 16, requires_grad=True)
    torch.relu(layer(x)).sum().backward()
    kept.append(torch.randn(37 + turn))
"""


def test_nothing_is_written_past_a_buffer() -> None:
    """In a process of its own, with the allocator's checks on: an overrun ends it."""
    checks = {"GLIBC_TUNABLES": "glibc.malloc.check=3", "OMP_NUM_THREADS": "1"}
    command = ["env", *(f"{name}={value}" for name, value in checks.items()), sys.executable]
    subprocess.run([*command, "-c", _PROGRAM], check=True)
