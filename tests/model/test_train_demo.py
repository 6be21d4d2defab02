"""The demo's training script reads idx files and augments as it says."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

_SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "train_demo.py"
_spec = importlib.util.spec_from_file_location("train_demo", _SCRIPT)
assert _spec is not None
assert _spec.loader is not None
train_demo = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(train_demo)


def write_idx(path: Path, array: np.ndarray, element: int = 0x08) -> None:
    header = bytes([0, 0, element, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes()))


def test_idx_files(tmp_path: Path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    write_idx(tmp_path / "a.gz", array)
    np.testing.assert_array_equal(train_demo.read_idx(tmp_path / "a.gz"), array)
    write_idx(tmp_path / "b.gz", array, element=0x0D)
    with pytest.raises(SystemExit, match="element type 0xd"):
        train_demo.read_idx(tmp_path / "b.gz")


def test_validation_images_are_the_last_thousand_and_not_trained_on(tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 256, (1200, 28, 28), np.uint8)
    for part, count in (("train", 1200), ("t10k", 50)):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", images[:count])
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", np.zeros(count, np.uint8))
    splits = train_demo.read_splits(tmp_path)
    assert splits["train_x"].shape == (200, 1, 28, 28)
    np.testing.assert_array_equal(splits["validation_x"][:, 0], images[200:])
    assert splits["test_y"].shape == (50,)


def test_augmentation_shifts_and_mirrors():
    x = torch.zeros(64, 1, 28, 28)
    x[:, :, 10, 8] = 1
    generator = torch.Generator().manual_seed(3)
    columns = set()
    for _ in range(20):
        made = train_demo.augment(x, generator)
        assert made.shape == x.shape
        assert made.sum() == 64
        columns |= set(made.nonzero()[:, 3].tolist())
    # Column 8 shifted by at most two, or its mirror image 27 - that.
    assert columns <= {6, 7, 8, 9, 10, 17, 18, 19, 20, 21}
    assert columns & {6, 7, 8, 9, 10}
    assert columns & {17, 18, 19, 20, 21}
