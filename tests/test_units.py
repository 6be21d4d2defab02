from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecompress.errors import BadInput
from edgecompress.units import format_bytes, format_count, format_us, parse_bytes


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("512K", 524_288), ("512KiB", 524_288), ("512kb", 524_288), ("1M", 1_048_576),
        ("1.5M", 1_572_864), (" 64 k ", 65_536), ("1g", 1_073_741_824), ("812", 812),
        ("812B", 812), (4096, 4096), ("0", 0),
    ],
)  # fmt: skip
def test_sizes_people_write(text: str | int, size_bytes: int) -> None:
    assert parse_bytes(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "K", "-1", "1KK", "1 T", "0x10", "1,5M", "512Q", "nan", "1e3"]
)
def test_what_is_not_a_size_is_refused_in_words(text: str) -> None:
    with pytest.raises(BadInput, match="is not a size") as caught:
        parse_bytes(text)
    assert caught.value.exit_code == 2
    assert caught.value.next_step


@pytest.mark.parametrize("value", [-1, 1.5, True, None, [1]])
def test_what_is_not_text_or_a_count_is_refused_too(value: object) -> None:
    with pytest.raises(BadInput, match="is not a size"):
        parse_bytes(value)  # type: ignore[arg-type]


@given(st.integers(min_value=0, max_value=2**40))
def test_a_byte_count_survives_its_own_text(count: int) -> None:
    assert parse_bytes(str(count)) == count


@given(st.integers(min_value=0, max_value=4096))
def test_kibibytes_are_1024_bytes(count: int) -> None:
    assert parse_bytes(f"{count}K") == parse_bytes(f"{count}KiB") == count * 1024


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (152_064, "148.5 KiB"),
        (1_048_576, "1.00 MiB"), (-2048, "-2.0 KiB"),
    ],
)  # fmt: skip
def test_format_bytes(value: int, text: str) -> None:
    assert format_bytes(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(870, "870"), (12_300, "12.3 k"), (12_500_000, "12.50 M"), (3_200_000_000, "3.20 G")],
)
def test_format_count(value: int, text: str) -> None:
    assert format_count(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(870, "870 us"), (41_200, "41.2 ms"), (1_300_000, "1.30 s")]
)
def test_format_us(value: float, text: str) -> None:
    assert format_us(value) == text
