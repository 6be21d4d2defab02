"""The DSP table lookup against its numpy twin on Cortex-M4, M7 and M33."""

from __future__ import annotations

import numpy as np
import pytest
from board import CORES, Board

from edgecompress.lower.isa.dsp.lookup import LookupGenerator
from edgecompress.lower.kernels.lookup import Lookup


@pytest.mark.parametrize("core", CORES)
def test_every_size_and_value(core):
    random = np.random.default_rng(1)
    table = random.integers(-128, 128, 256).astype(np.int8)
    for elements in (1, 2, 3, 4, 7, 256):
        kernel = Lookup((1, elements))
        x = random.permutation(np.arange(-128, 128)).astype(np.int8)[None, :elements]
        (offer,) = LookupGenerator().implement(kernel, (table,))
        board = Board([offer], core)
        for overlap in (None, 0):
            outcome = board.run(0, [x], kernel.shape, overlap=overlap)
            np.testing.assert_array_equal(outcome.output, kernel.reference(x, table))
            assert outcome.instructions == offer.cost.instructions
