from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edgecompress.records import (
    Budget,
    LowRank,
    Measurement,
    Plan,
    Prediction,
    SizeReport,
    Verification,
    sha256_file,
)

names = st.text(min_size=1, max_size=12)
counts = st.integers(min_value=0, max_value=2**40)
ranks = st.lists(st.integers(1, 512), min_size=1, max_size=2).map(tuple)
plans = st.builds(
    Plan,
    model_hash=names,
    data_hash=names,
    target=names,
    budget=st.builds(
        Budget,
        flash_bytes=st.none() | counts,
        ram_bytes=st.none() | counts,
        latency_us=st.none() | st.floats(0, 1e9),
    ),
    seed=counts,
    effort=st.sampled_from(["fast", "balanced"]),
    widths=st.dictionaries(names, counts),
    low_rank=st.dictionaries(
        names, st.builds(LowRank, method=st.sampled_from(["svd", "tucker2"]), ranks=ranks)
    ),
    predicted=st.builds(Prediction, flash_bytes=counts, ram_bytes=counts),
)


@given(plans)
def test_a_plan_survives_its_file(plan: Plan) -> None:
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert again.to_json() == plan.to_json()
    assert again.content_hash() == plan.content_hash()


def test_json_is_indented_and_ends_with_a_newline() -> None:
    text = Budget(flash_bytes=1).to_json()
    assert text.endswith("}\n")
    assert json.loads(text) == {"flash_bytes": 1, "ram_bytes": None, "latency_us": None}


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(ValidationError, match="flsh"):
        Budget.from_json('{"flsh": 1}')


def test_missing_keys_are_refused() -> None:
    with pytest.raises(ValidationError, match="exact"):
        Verification.from_json('{"layers": 1, "samples": 1, "sides": []}')


def test_records_are_frozen() -> None:
    budget = Budget(flash_bytes=1)
    with pytest.raises(ValidationError, match="frozen"):
        budget.flash_bytes = 2  # type: ignore[misc]


def test_a_measurement_label_must_be_one_of_the_four_kinds() -> None:
    with pytest.raises(ValidationError, match="label"):
        Measurement(device="x", label="roughly")  # type: ignore[arg-type]


def test_content_hash_follows_content() -> None:
    one, two = Budget(flash_bytes=1), Budget(flash_bytes=2)
    assert one.content_hash() == Budget(flash_bytes=1).content_hash() != two.content_hash()
    assert len(one.content_hash()) == 64


def test_size_report_totals_are_the_sums_of_its_parts() -> None:
    size = SizeReport(flash_sections={"weights": 3, "kernels": 4}, ram_parts={"arena": 5})
    assert (size.flash_bytes, size.ram_bytes) == (7, 5)


def test_sha256_file_is_the_bytes_hash(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc" * 100_000)
    assert sha256_file(path) == hashlib.sha256(b"abc" * 100_000).hexdigest()
