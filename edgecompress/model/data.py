"""Data for calibration, fine-tuning and accuracy: checked once, here, before anything trusts it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgecompress.errors import BadData
from edgecompress.model.images import read_image_folder
from edgecompress.model.symbols import call_symbol, is_symbol

SPLIT_NAMES = ("train", "validation", "test")
_SPLIT_FRACTIONS = (0.70, 0.15)
_ACCEPTED = "Accepted: x and optional y, or train_x, validation_x, test_x with optional _y."


@dataclass(frozen=True)
class Dataset:
    """x [N, ...] float32 as the model takes it; y [N] int64 class numbers, or [N, ...] float32
    numbers to predict, or None."""

    x: np.ndarray
    y: np.ndarray | None

    @property
    def classes(self) -> np.ndarray | None:
        """y where it names classes."""
        return None if self.y is None or self.y.dtype.kind == "f" else self.y

    def __len__(self) -> int:
        return len(self.x)

    def first(self, most: int) -> Dataset:
        """No more than so many samples."""
        return Dataset(self.x[:most], None if self.y is None else self.y[:most])


@dataclass(frozen=True)
class Splits:
    """Disjoint parts: tuned on train, selected on validation, reported on test.

    `hash` is the sha256 of all arrays in hex.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    hash: str
    name: str


def load_data(spec: str | None, *, input_shape: tuple[int, ...], seed: int = 0) -> Splits:
    """Reads and checks data.

    Args:
        spec: a `.npz` file; a folder with one subfolder of images per class; "pkg.mod:callable"
            returning a mapping like the npz; None or "demo" for the bundled Fashion-MNIST subset.
        input_shape: the model's, with its batch of 1; samples must have the rest of it.
        seed: of the 70/15/15 split made where only x (and y) is given.

    Raises:
        BadData: missing or damaged file, wrong shape or dtype, NaN or infinity, no samples,
            or labels that are neither one integer class number nor finite floats per sample.
    """
    arrays, name = _read(spec, input_shape)
    if "x" in arrays:
        return _divide(_dataset(arrays, "", name, input_shape), name, seed)
    parts = {
        split: _dataset(arrays, f"{split}_", name, input_shape)
        for split in SPLIT_NAMES
        if f"{split}_x" in arrays
    }
    missing = [split for split in SPLIT_NAMES if split not in parts]
    if missing:
        held = ", ".join(sorted(arrays)) or "nothing"
        lacking = ", ".join(f"{split}_x" for split in missing)
        raise BadData(f"{name} holds {held}; {lacking} is missing.", next_step=_ACCEPTED)
    return _splits(parts["train"], parts["validation"], parts["test"], name)


def _read(spec: str | None, input_shape: tuple[int, ...]) -> tuple[Mapping[str, Any], str]:
    if spec is None or spec == "demo":
        from edgecompress.model.demo import demo_data

        return demo_data(), "demo"
    path = Path(spec)
    if is_symbol(spec) and not path.exists():
        found = call_symbol(spec)
        if not isinstance(found, Mapping):
            raise BadData(
                f"'{spec}' returned a {type(found).__name__}, not a mapping of arrays.",
                next_step=_ACCEPTED,
            )
        return found, spec
    if path.is_dir():
        return read_image_folder(path, input_shape), path.name
    if not path.exists():
        raise BadData(
            f"There is no file or folder '{spec}'.",
            next_step="Give a .npz, a folder of class folders, or pkg.mod:callable.",
        )
    if path.suffix != ".npz":
        raise BadData(
            f"'{spec}' is not a form of data I can read.",
            next_step="Give a .npz, a folder of class folders, or pkg.mod:callable.",
        )
    return _read_npz(path), path.stem


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    advice = "Write it with numpy.savez(path, x=x, y=y)."
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise BadData(f"'{path}' is a single array, not a .npz archive.", next_step=advice)
        with archive:
            return {name: archive[name] for name in archive.files}
    except BadData:
        raise
    except Exception as error:
        # numpy reads headers as Python text, so damage surfaces as almost any exception.
        if "pickle" in str(error):
            raise BadData(
                f"'{path}' holds pickled objects, which can run code.",
                next_step="Save plain numeric arrays with numpy.savez(path, x=x, y=y).",
            ) from error
        kind = type(error).__name__
        raise BadData(
            f"'{path}' is not a readable .npz archive ({kind}).", next_step=advice
        ) from error


def _dataset(
    arrays: Mapping[str, Any], prefix: str, name: str, input_shape: tuple[int, ...]
) -> Dataset:
    where = f"{prefix}x in {name}"
    x = _samples(np.asarray(arrays[f"{prefix}x"]), where, input_shape)
    y = arrays.get(f"{prefix}y")
    return Dataset(x, None if y is None else _labels(np.asarray(y), f"{prefix}y in {name}", len(x)))


def _samples(x: np.ndarray, where: str, input_shape: tuple[int, ...]) -> np.ndarray:
    if x.ndim == 0 or len(x) == 0:
        raise BadData(f"{where} is empty.", next_step="Give at least one sample.")
    if x.dtype not in (np.float32, np.float64, np.float16):
        raise BadData(
            f"{where} is {x.dtype}, but the model takes float32.",
            next_step="Scale it as for training, e.g. x.astype('float32') / 255.",
        )
    wanted = input_shape[1:]
    # Grey images are often stored without their channel; there is only one place it can go.
    if x.ndim == 3 and len(wanted) == 3 and wanted[0] == 1 and x.shape[1:] == wanted[1:]:
        x = x[:, None]
    if x.shape[1:] != wanted:
        hint = "Give samples in the model's own order and size."
        if x.ndim == 4 and len(wanted) == 3 and (x.shape[3], *x.shape[1:3]) == wanted:
            hint = "It looks channels-last: use x.transpose(0, 3, 1, 2)."
        raise BadData(
            f"{where} has samples of shape {list(x.shape[1:])}, "
            f"but the model takes {list(wanted)}.",
            next_step=hint,
        )
    finite = np.isfinite(x)
    if not finite.all():
        index = tuple(int(i) for i in np.argwhere(~finite)[0])
        value = x[index]
        raise BadData(
            f"{where} holds {value} at index {list(index)} "
            f"({int((~finite).sum())} of {x.size} values are not finite).",
            next_step="Remove or repair these samples.",
        )
    return np.ascontiguousarray(x, np.float32)


def _labels(y: np.ndarray, where: str, samples: int) -> np.ndarray:
    if np.issubdtype(y.dtype, np.floating) and y.ndim and len(y) == samples and not _one_hot(y):
        return _numbers(y, where)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or len(y) != samples:
        raise BadData(
            f"{where} has shape {list(y.shape)}, but there are {samples} samples.",
            next_step="Give one class number per sample (argmax of one-hot labels).",
        )
    if not np.issubdtype(y.dtype, np.integer):
        raise BadData(
            f"{where} is {y.dtype}; labels are integer class numbers or floats to predict.",
            next_step="Use y.astype('int64'), or y.astype('float32') for a regression.",
        )
    if y.min() < 0:
        first = int(np.argmax(y < 0))
        raise BadData(
            f"{where} holds {int(y[first])} at index {first}; class numbers start at 0.",
            next_step="Renumber the classes from 0.",
        )
    return y.astype(np.int64)


def _one_hot(y: np.ndarray) -> bool:
    """Rows of zeros with a single one: classes, written as floats."""
    if y.ndim != 2 or y.shape[1] < 2:
        return False
    return bool(np.isin(y, (0, 1)).all() and (y.sum(1) == 1).all())


def _numbers(y: np.ndarray, where: str) -> np.ndarray:
    """[N, ...] float32, [N] as [N, 1]."""
    finite = np.isfinite(y)
    if not finite.all():
        index = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise BadData(
            f"{where} holds {y[index]} at index {list(index)} "
            f"({int((~finite).sum())} of {y.size} values are not finite).",
            next_step="Remove or repair these samples.",
        )
    return np.ascontiguousarray(y.reshape(len(y), *(y.shape[1:] or (1,))), np.float32)


def _divide(dataset: Dataset, name: str, seed: int) -> Splits:
    """A seeded 70/15/15 split; every part gets at least one sample."""
    count = len(dataset)
    if count < len(SPLIT_NAMES):
        raise BadData(
            f"{name} holds {count} samples; a train, a validation and a test part need at least "
            f"{len(SPLIT_NAMES)}.",
            next_step="Give more samples, or train_x, validation_x and test_x yourself.",
        )
    order = np.random.default_rng(seed).permutation(count)
    validation_count = max(1, round(_SPLIT_FRACTIONS[1] * count))
    train_count = min(max(1, round(_SPLIT_FRACTIONS[0] * count)), count - validation_count - 1)
    train, validation, test = np.split(order, [train_count, train_count + validation_count])
    return _splits(_take(dataset, train), _take(dataset, validation), _take(dataset, test), name)


def _take(dataset: Dataset, indexes: np.ndarray) -> Dataset:
    y = dataset.y
    return Dataset(dataset.x[indexes], None if y is None else y[indexes])


def _splits(train: Dataset, validation: Dataset, test: Dataset, name: str) -> Splits:
    digest = hashlib.sha256()
    for dataset in (train, validation, test):
        for array in (dataset.x, dataset.y):
            if array is not None:
                digest.update(f"{array.dtype.str}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
    return Splits(train, validation, test, digest.hexdigest(), name)
