"""A measure of the user's own: what it selects, and how it fails."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgecompress.compress.finetune import user_metric
from edgecompress.compress.method_options import SparsifyOptions
from edgecompress.compression import compress_model
from edgecompress.errors import BadInput

HERE = "test_user_metric"


def half_right(outputs: np.ndarray, labels: np.ndarray | None) -> float:
    assert outputs.dtype == np.float32
    return 0.5


def smallest_output(outputs: np.ndarray, labels: np.ndarray | None) -> float:
    """Larger is better: the outputs nearest to zero."""
    return -float(np.abs(outputs).mean())


def nothing(outputs: np.ndarray, labels: np.ndarray | None) -> float:
    return math.nan


def broken(outputs: np.ndarray, labels: np.ndarray | None) -> float:
    raise KeyError("class 7")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 4)).eval()


def data() -> dict[str, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(120, 12)).astype(np.float32)
    return {"x": x, "y": np.arange(120) % 4}


def test_it_is_called_with_outputs_and_labels():
    assert user_metric(f"{HERE}:half_right")(np.zeros((3, 2), np.float32), None) == 0.5


@pytest.mark.parametrize(
    ("name", "words"), [("nothing", "returned nan"), ("broken", "failed: KeyError: 'class 7'")]
)
def test_its_failures_are_one_line(name, words):
    with pytest.raises(BadInput, match=words) as caught:
        user_metric(f"{HERE}:{name}")(np.zeros((3, 2), np.float32), None)
    assert "\n" not in str(caught.value)


def test_compress_selects_and_reports_by_it(tmp_path: Path):
    result = compress_model(
        f"{HERE}:network", SparsifyOptions(sparsity=0.5), data=f"{HERE}:data", finetune_steps=15,
        metric=f"{HERE}:smallest_output", output=tmp_path / "out", input_shape=(1, 12),
    )  # fmt: skip
    assert result.metric == f"{HERE}:smallest_output"
    before, after = result.accuracy["validation"]
    assert before < 0
    assert after >= before
    written = json.loads((tmp_path / "out" / "result.json").read_text())
    assert written["accuracy"]["validation"] == [before, after]
