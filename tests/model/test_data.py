"""Data arrives checked, split and hashed; every kind of bad data has its own line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecompress.errors import BadData, BadInput
from edgecompress.model.data import load_data

SHAPE = (1, 3, 8, 8)
RNG = np.random.default_rng(0)
X = RNG.random((20, *SHAPE[1:])).astype(np.float32)
Y = np.arange(20) % 4


def save(folder: Path, **arrays: Any) -> str:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return str(path)


def check_refused(spec: str, says: str, shape: tuple[int, ...] = SHAPE) -> None:
    with pytest.raises(BadData, match=says) as refused:
        load_data(spec, input_shape=shape)
    assert "\n" not in str(refused.value)
    assert refused.value.next_step


def test_x_and_y_are_split_70_15_15_without_overlap(tmp_path: Path):
    splits = load_data(save(tmp_path, x=X, y=Y), input_shape=SHAPE)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [14, 3, 3]
    joined = np.concatenate([splits.train.x, splits.validation.x, splits.test.x])
    assert {row.tobytes() for row in joined} == {row.tobytes() for row in X}
    label_of = {x.tobytes(): int(y) for x, y in zip(X, Y, strict=True)}
    assert splits.test.y is not None
    assert [label_of[x.tobytes()] for x in splits.test.x] == splits.test.y.tolist()
    assert splits.train.x.dtype == np.float32
    assert splits.train.y is not None
    assert splits.train.y.dtype == np.int64


def test_the_split_and_hash_follow_the_seed(tmp_path: Path):
    spec = save(tmp_path, x=X, y=Y)
    first = load_data(spec, input_shape=SHAPE, seed=1)
    assert first.hash == load_data(spec, input_shape=SHAPE, seed=1).hash
    assert first.hash != load_data(spec, input_shape=SHAPE, seed=2).hash
    changed = X.copy()
    changed[0, 0, 0, 0] += 1
    assert first.hash != load_data(save(tmp_path, x=changed, y=Y), input_shape=SHAPE, seed=1).hash


def test_without_labels(tmp_path: Path):
    splits = load_data(save(tmp_path, x=X), input_shape=SHAPE)
    assert splits.train.y is splits.validation.y is splits.test.y is None


def test_given_splits_are_kept(tmp_path: Path):
    parts = {"train_x": X[:10], "train_y": Y[:10], "validation_x": X[10:14], "test_x": X[14:]}
    splits = load_data(save(tmp_path, **parts), input_shape=SHAPE)
    np.testing.assert_array_equal(splits.test.x, X[14:])
    np.testing.assert_array_equal(splits.train.y, Y[:10])
    assert splits.validation.y is None


def test_float64_and_column_labels_are_taken(tmp_path: Path):
    spec = save(tmp_path, x=X.astype(np.float64), y=Y[:, None].astype(np.uint8))
    splits = load_data(spec, input_shape=SHAPE)
    assert splits.train.x.dtype == np.float32


def test_floats_are_numbers_to_predict(tmp_path: Path):
    splits = load_data(save(tmp_path, x=X, y=Y.astype(np.float64) / 2), input_shape=SHAPE)
    assert (splits.train.y.shape, splits.train.y.dtype) == ((14, 1), np.float32)
    assert splits.train.classes is None
    rows = load_data(save(tmp_path, x=X, y=X[:, 0, 0, :3]), input_shape=SHAPE)
    assert rows.test.y.shape == (3, 3)
    classes = load_data(save(tmp_path, x=X, y=Y), input_shape=SHAPE)
    assert classes.test.classes is classes.test.y


def test_grey_images_may_leave_their_channel_out(tmp_path: Path):
    splits = load_data(save(tmp_path, x=X[:, 0]), input_shape=(1, 1, 8, 8))
    assert splits.train.x.shape == (14, 1, 8, 8)


def test_callable_and_demo():
    assert load_data("user_models:data", input_shape=SHAPE).name == "user_models:data"
    splits = load_data(None, input_shape=(1, 1, 28, 28))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (10_000, 1_000, 2_000)
    assert splits.name == "demo"


def test_demo_data_for_another_model():
    check_refused("demo", r"\[1, 28, 28\], but the model takes \[3, 8, 8\]")


NAN = X.copy()
NAN[4, 1, 2, 3] = np.nan
INFINITE = X.copy()
INFINITE[0, 0, 0, 7] = np.inf

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "empty": ({"x": X[:0]}, "x in data is empty"),
    "scalar": ({"x": np.float32(1)}, "x in data is empty"),
    "bytes": ({"x": (X * 255).astype(np.uint8)}, r"is uint8.*astype\('float32'\) / 255"),
    "integers": ({"x": (X * 255).astype(np.int64)}, "is int64"),
    "text": ({"x": np.array(["a", "b"])}, "is <U1"),
    "shape": ({"x": X[:, :2]}, r"\[2, 8, 8\], but the model takes \[3, 8, 8\]"),
    "channels last": ({"x": X.transpose(0, 2, 3, 1)}, r"x\.transpose\(0, 3, 1, 2\)"),
    "no channel where three are wanted": ({"x": X[:, 0]}, r"\[8, 8\], but the model takes"),
    "NaN": ({"x": NAN}, r"nan at index \[4, 1, 2, 3\] \(1 of 3840 values"),
    "infinity": ({"x": INFINITE}, r"inf at index \[0, 0, 0, 7\]"),
    "words as labels": ({"x": X, "y": Y.astype(str)}, "is <U.*integer class numbers or floats"),
    "infinite numbers": ({"x": X, "y": np.full((20, 2), np.inf)}, "inf at index .0, 0."),
    "one-hot labels": ({"x": X, "y": np.eye(4)[Y]}, r"shape \[20, 4\], but there are 20 samples"),
    "too few labels": ({"x": X, "y": Y[:7]}, r"shape \[7\], but there are 20 samples"),
    "negative labels": ({"x": X, "y": Y - 1}, "holds -1 at index 0"),
    "too few samples": ({"x": X[:2]}, "2 samples"),
    "missing parts": ({"train_x": X, "test_x": X}, "validation_x is missing"),
    "foreign names": ({"images": X}, "holds images; train_x, validation_x, test_x is missing"),
    "bad part": ({"train_x": X, "validation_x": NAN, "test_x": X}, "validation_x in data holds"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arrays(case: str, tmp_path: Path):
    arrays, says = BAD[case]
    check_refused(save(tmp_path, **arrays), says)


def test_pickles_are_not_opened(tmp_path: Path):
    spec = save(tmp_path, x=np.array([{"a": 1}, None], dtype=object))
    check_refused(spec, "pickled objects, which can run code")


def test_bare_pickle_with_an_npz_name(tmp_path: Path):
    np.save(tmp_path / "array.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "array.npy").rename(tmp_path / "data.npz")
    check_refused(str(tmp_path / "data.npz"), "data.npz' (holds pickled|is not a readable)")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"plain text"])
def test_damaged_archives(content: bytes, tmp_path: Path):
    (tmp_path / "data.npz").write_bytes(content)
    check_refused(str(tmp_path / "data.npz"), "data.npz' (is not a readable|holds pickled)")


def test_archive_damaged_inside(tmp_path: Path):
    path = tmp_path / "data.npz"
    np.savez_compressed(path, x=X, y=Y)
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(content)
    check_refused(str(path), "is not a readable .npz")


def test_single_array_file(tmp_path: Path):
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "x.npy").rename(tmp_path / "data.npz")
    check_refused(str(tmp_path / "data.npz"), "is a single array")


def test_missing_and_foreign_files(tmp_path: Path):
    check_refused(str(tmp_path / "gone.npz"), "There is no file or folder")
    (tmp_path / "data.csv").write_text("1,2,3")
    check_refused(str(tmp_path / "data.csv"), "not a form of data")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("user_models:gone", "no attribute 'gone'"),
        ("no_such_package:make", "no Python module"),
        ("user_models:perceptron", "returned a Sequential, not a mapping"),
    ],
)
def test_callables_that_give_no_data(spec: str, says: str):
    with pytest.raises(BadInput, match=re.escape(says)):
        load_data(spec, input_shape=SHAPE)
