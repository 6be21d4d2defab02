"""Both figures of every encoded layer are shown: bytes saved and instructions spent."""

from __future__ import annotations

from report_samples import make_result

from edgecompress.records import LayerReport
from edgecompress.report.codecs import codec_table
from edgecompress.report.text import plain_text, report_text


def layer(index: int, name: str, **changes: object) -> LayerReport:
    fields: dict[str, object] = {
        "index": index, "name": name, "kernel": "k", "output_shape": (1, 8),
        "output_dtype": "int8", "location": "arena", "offset_bytes": 0, "size_bytes": 8,
        "macs": 0, "is_float": False, "implementation": "dsp conv",
    }  # fmt: skip
    return LayerReport(**{**fields, **changes})  # type: ignore[arg-type]


CONV = layer(
    0, "conv1", codec="packed4", constant_bytes=2048, codec_saved_bytes=1024,
    codec_instructions=123_456,
)  # fmt: skip
HEAD = layer(
    2, "head", codec="bitmap", constant_bytes=1024, codec_saved_bytes=3072, codec_instructions=-44
)
PLAIN = layer(1, "pool")


def test_each_encoded_layer_and_their_sum():
    table = codec_table([CONV, PLAIN, HEAD])
    assert table is not None
    rows = [line.split() for line in plain_text(table).splitlines()]
    assert rows[1] == ["conv1", "packed4", "2.0", "KiB", "1.0", "KiB", "+123,456"]
    assert rows[2] == ["head", "bitmap", "1.0", "KiB", "3.0", "KiB", "-44"]
    assert rows[3] == ["2", "layers", "3.0", "KiB", "4.0", "KiB", "+123,412"]
    assert "pool" not in plain_text(table)


def test_one_layer_needs_no_sum_and_none_no_table():
    assert codec_table([PLAIN]) is None
    table = codec_table([CONV])
    assert table is not None
    assert "1 layers" not in plain_text(table)


def test_the_report_of_a_result_shows_them():
    assert "packed4" in report_text(make_result(layers=(CONV, PLAIN)))
    assert "Encoded layer" not in report_text(make_result(layers=(PLAIN,)))
