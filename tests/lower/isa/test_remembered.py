"""Two generators that build on one ask it once a layer, and never get another layer's answer."""

from __future__ import annotations

import numpy as np

from edgecompress.lower.isa.interface import Remembered


class Counting:
    def __init__(self) -> None:
        self.asked = []

    def implement(self, kernel, constants):
        self.asked.append((kernel, constants))
        return [len(self.asked)]


def test_only_the_same_kernel_on_the_very_same_constants_is_answered_from_memory():
    counting = Counting()
    generator = Remembered(counting)
    weights, bias = np.zeros(4, np.int8), np.zeros(1, np.int32)
    assert generator.implement("conv", (weights, bias)) == [1]
    assert generator.implement("conv", (weights, bias)) == [1]
    assert generator.implement("dense", (weights, bias)) == [2]
    assert generator.implement("dense", (weights.copy(), bias)) == [3]
    assert generator.implement("dense", (weights,)) == [4]
    assert len(counting.asked) == 4
