"""The planner bench's data sets, as splits of float32 samples [N, C, H, W].

fashion   Fashion-MNIST, [1, 28, 28]        Debian's dataset-fashion-mnist, else the demo's part
cifar     CIFAR-10's JPEG pack, [3, 32, 32] train and test both on it; not CIFAR-10 itself
fsdd      spoken digits, [1, 49, 10]        MFCC of one second at 8 kHz; test = index below 5
hapt      activity recognition, [6, 1, 128] windows of 128 at 50 Hz; users 25 to 30 test
"""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path

import numpy as np

from edgecompress.errors import BadInput
from edgecompress.model.data import Dataset, Splits, load_data

NAMES = ("fashion", "cifar", "fsdd", "hapt")
FASHION = Path("/usr/share/datasets/fashion-mnist")
_RATE, _WINDOW, _HOP, _FFT = 8000, 240, 160, 256
_BANDS, _COEFFICIENTS, _FRAMES = 26, 10, 49
_STEPS = 64
_VALIDATION_USERS, _TEST_USERS = 21, 24


def data_folder() -> Path:
    """$EDGECOMPRESS_DATA, or `shared/data` beside the checkout."""
    given = os.environ.get("EDGECOMPRESS_DATA")
    return Path(given) if given else Path(__file__).resolve().parents[3] / "shared" / "data"


def load(name: str, limit: int | None = None) -> Splits:
    """One data set.

    Args:
        limit: training samples at most, the first of a seeded order; validation and test a
            quarter of it.

    Raises:
        BadInput: its file is not here.
    """
    arrays = {"fashion": fashion, "cifar": cifar, "fsdd": fsdd, "hapt": hapt}[name]()
    if limit is not None:
        arrays = _limited(arrays, limit)
    parts = {
        split: Dataset(
            np.ascontiguousarray(arrays[f"{split}_x"], np.float32),
            arrays[f"{split}_y"].astype(np.int64),
        )
        for split in ("train", "validation", "test")
    }
    return Splits(**parts, hash=_hash(parts), name=name)


def _hash(parts: dict[str, Dataset]) -> str:
    import hashlib

    digest = hashlib.sha256()
    for data in parts.values():
        assert data.y is not None
        digest.update(np.ascontiguousarray(data.x).data)
        digest.update(data.y.data)
    return digest.hexdigest()


def _limited(arrays: dict[str, np.ndarray], limit: int) -> dict[str, np.ndarray]:
    found = {}
    for split, most in (("train", limit), ("validation", limit // 4), ("test", limit // 4)):
        order = np.random.default_rng(0).permutation(len(arrays[f"{split}_y"]))[:most]
        found |= {f"{split}_{kind}": arrays[f"{split}_{kind}"][order] for kind in "xy"}
    return found


def _split(
    x: np.ndarray, y: np.ndarray, share: float, test_x: np.ndarray, test_y: np.ndarray
) -> dict[str, np.ndarray]:
    """Training data divided by a seeded order; the test part as it is."""
    order = np.random.default_rng(0).permutation(len(x))
    held = round(share * len(x))
    return {
        "train_x": x[order[held:]], "train_y": y[order[held:]],
        "validation_x": x[order[:held]], "validation_y": y[order[:held]],
        "test_x": test_x, "test_y": test_y,
    }  # fmt: skip


def fashion() -> dict[str, np.ndarray]:
    if not FASHION.is_dir():
        splits = load_data("demo", input_shape=(1, 1, 28, 28))
        named = (("train", splits.train), ("validation", splits.validation), ("test", splits.test))
        return {
            f"{name}_{kind}": value
            for name, part in named
            for kind, value in (("x", part.x), ("y", part.y))
            if value is not None
        }

    def read(name: str, offset: int) -> np.ndarray:
        with gzip.open(FASHION / f"{name}.gz") as file:
            return np.frombuffer(file.read(), np.uint8, offset=offset)

    def images(name: str) -> np.ndarray:
        return read(f"{name}-images-idx3-ubyte", 16).reshape(-1, 1, 28, 28).astype(np.float32) / 255

    return _split(
        images("train"), read("train-labels-idx1-ubyte", 8), 1 / 12,
        images("t10k"), read("t10k-labels-idx1-ubyte", 8),
    )  # fmt: skip


def _archive(name: str) -> dict[str, np.ndarray]:
    path = data_folder() / name
    if not path.is_file():
        raise BadInput(f"{path} is not here.", next_step="Set EDGECOMPRESS_DATA to its folder.")
    with np.load(path, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}


def cifar() -> dict[str, np.ndarray]:
    from PIL import Image

    packed = _archive("cifar10_jpeg_packed.npz")

    def images(split: str) -> np.ndarray:
        blob, ends = packed[f"{split}_jpeg"], packed[f"{split}_end"]
        starts = np.concatenate([[0], ends[:-1]])
        made = np.empty((len(ends), 3, 32, 32), np.float32)
        for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
            image = Image.open(io.BytesIO(blob[start:end].tobytes())).convert("RGB")
            made[index] = np.asarray(image, np.float32).transpose(2, 0, 1) / 255
        return made

    return _split(images("train"), packed["train_y"], 0.1, images("test"), packed["test_y"])


def fsdd() -> dict[str, np.ndarray]:
    packed = _archive("fsdd_8khz.npz")
    starts = np.concatenate([[0], packed["end"][:-1]])
    x = np.stack([
        mfcc(packed["pcm"][start:end].astype(np.float32) / 32768)
        for start, end in zip(starts, packed["end"], strict=True)
    ])[:, None]  # fmt: skip
    y, index = packed["label"], packed["index"]
    parts = {"test": index < 5, "validation": (index >= 5) & (index < 10), "train": index >= 10}
    train = x[parts["train"]]
    x = (x - train.mean((0, 1, 2))) / train.std((0, 1, 2))
    return {
        f"{name}_{kind}": values[rows]
        for name, rows in parts.items()
        for kind, values in (("x", x), ("y", y))
    }


def mfcc(signal: np.ndarray) -> np.ndarray:
    """[49, 10] float32 of the first second: 30 ms Hamming windows every 20 ms, 26 mel bands to
    4 kHz, logarithm, DCT-II (Davis and Mermelstein, 1980)."""
    from scipy.fft import dct

    padded = np.zeros(_WINDOW + _HOP * (_FRAMES - 1), np.float32)
    padded[: min(len(signal), len(padded))] = signal[: len(padded)]
    at = _HOP * np.arange(_FRAMES)[:, None] + np.arange(_WINDOW)
    spectrum = np.abs(np.fft.rfft(padded[at] * np.hamming(_WINDOW), _FFT)) ** 2
    energies = np.log(spectrum @ mel_filters().T + 1e-6)
    return dct(energies, type=2, axis=1, norm="ortho")[:, :_COEFFICIENTS].astype(np.float32)


def mel_filters() -> np.ndarray:
    """[26, 129] triangles, evenly spaced on the mel scale from 60 Hz to 4 kHz."""

    def mel(hertz: float) -> float:
        return 2595 * np.log10(1 + hertz / 700)

    edges = 700 * (10 ** (np.linspace(mel(60), mel(_RATE / 2), _BANDS + 2) / 2595) - 1)
    bins = np.linspace(0, _RATE / 2, _FFT // 2 + 1)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.clip(np.minimum(rising, falling), 0, None)


def hapt() -> dict[str, np.ndarray]:
    """Windows whose 128 samples all carry one label, half overlapping."""
    packed = _archive("hapt_raw50hz.npz")
    signal = packed["signal"].astype(np.float32) / packed["scale"]
    label, user, recording = packed["label"], packed["user"], packed["recording"]
    starts = np.arange(0, len(label) - 128, _STEPS)
    ends = starts + 127
    whole = (recording[starts] == recording[ends]) & (user[starts] == user[ends])
    starts = starts[whole & (label[starts] > 0)]
    changes = np.concatenate([[0], np.cumsum(label[1:] != label[:-1])])
    starts = starts[changes[starts] == changes[starts + 127]]
    x = signal[starts[:, None] + np.arange(128)].transpose(0, 2, 1)[:, :, None]
    y, who = label[starts] - 1, user[starts]
    parts = {
        "train": who <= _VALIDATION_USERS,
        "validation": (who > _VALIDATION_USERS) & (who <= _TEST_USERS),
        "test": who > _TEST_USERS,
    }
    train = x[parts["train"]]
    mean, deviation = train.mean((0, 2, 3)), train.std((0, 2, 3))
    x = (x - mean[:, None, None]) / deviation[:, None, None]
    return {
        f"{name}_{kind}": values[rows]
        for name, rows in parts.items()
        for kind, values in (("x", x), ("y", y))
    }
