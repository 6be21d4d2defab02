"""Every codec gives back what it took, in as many bytes as it said."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgecompress.lower.codec import CODECS, UNIT, Bitmap, Lut, Packed4, storage_cost

INT8 = st.integers(-128, 127)


def flat(elements: st.SearchStrategy[int], most: int = 200) -> st.SearchStrategy[np.ndarray]:
    return arrays.arrays(np.int8, st.integers(1, most), elements=elements)


VALUES = st.one_of(
    flat(INT8),
    flat(st.integers(-8, 7)),
    flat(st.sampled_from([0, 0, 0, -128, 127, 5])),
    st.lists(INT8, min_size=1, max_size=16, unique=True).flatmap(
        lambda table: flat(st.sampled_from(table))
    ),
)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
@given(values=VALUES)
def test_round_trip(codec, values):
    if not codec.takes(values):
        with pytest.raises(ValueError, match=codec.name):
            codec.encode(values)
        return
    data = codec.encode(values)
    assert data.dtype == np.uint8
    assert data.nbytes == codec.encoded_bytes(values)
    decoded = codec.decode(data, values.size)
    assert decoded.dtype == np.int8
    np.testing.assert_array_equal(decoded, values)


@given(values=flat(INT8))
def test_what_each_takes(values):
    assert Packed4().takes(values) == bool((np.abs(values + 0.5) < 8).all())
    distinct = len(set(values.tolist()))
    assert Lut(16).takes(values) == (distinct <= 16)
    assert Lut(4).takes(values) == (distinct <= 4)
    zeros = values.tolist().count(0)
    assert Bitmap().takes(values) == (8 * zeros >= values.size)


def test_sizes():
    values = np.zeros(1000, np.int8)
    values[:250] = 3
    assert Packed4().encoded_bytes(values) == 500
    assert Lut(16).encoded_bytes(values) == 516
    assert Lut(4).encoded_bytes(values) == 254
    assert Bitmap().encoded_bytes(values) == 125 + 250
    for codec in CODECS:  # a stream ends with a whole unit
        assert codec.encoded_bytes(values[:993]) == codec.encoded_bytes(values[: 992 + UNIT])
        assert not codec.takes(values[:0])


def test_formats_stay():
    """The bytes the device's routines read."""
    values = np.array([-8, 7, 0, 1, -1, 2, 3, 4], np.int8)
    assert Packed4().encode(values).tolist() == [0x70, 0xAF, 0xB8, 0xC9]
    few = np.array([5, -5, 5, 5, 9, 9, -5, 9], np.int8)
    assert Lut(4).encode(few).tolist() == [251, 5, 9, 9, 0b01010001, 0b10001010]
    assert Bitmap().encode(np.array([0, 4, 0, 0, 0, 0, 0, -2], np.int8)).tolist() == [130, 4, 254]


@given(weights=st.integers(1, 5000), pixels=st.integers(1, 64), zeros=st.floats(0, 1))
def test_planned_bytes_are_the_codecs(weights, pixels, zeros):
    """What the planner expects of a layer is what its values will take, to a unit."""
    random = np.random.default_rng(weights)
    stored = {
        "int4": Packed4().encoded_bytes(random.integers(-7, 8, weights).astype(np.int8)),
        "shared16": Lut(16).encoded_bytes(random.integers(0, 16, weights).astype(np.int8)),
        "shared4": Lut(4).encoded_bytes(random.integers(0, 4, weights).astype(np.int8)),
    }
    for name, size in stored.items():
        cost = storage_cost(name, weights, weights * pixels)
        assert 0 <= size - cost.weight_bytes < UNIT
        assert cost.extra_instructions > 0
    sparse = np.ones(weights, np.int8)
    sparse[: round(zeros * weights)] = 0
    expected = min(weights, Bitmap().encoded_bytes(sparse))
    assert abs(storage_cost("sparse", weights, weights, zeros).weight_bytes - expected) <= 1
    assert storage_cost("int8", weights, weights * pixels).weight_bytes == weights
    assert storage_cost("int8", weights, weights * pixels).extra_instructions == 0


def test_needs_neither_torch_nor_tvm():
    code = "import sys, edgecompress.lower.codec; assert not {'torch', 'tvm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
