"""Makes everything in edgecompress/model/demo from Fashion-MNIST's four idx.gz files.

Training uses the official training set without its last 1,000 images, which are the validation
split; the official test set is only ever used to report the final accuracy. The bundled data are
the first 10,000 training images, those 1,000 validation images and the first 2,000 test images.

    python tools/train_demo.py [--source DIR] [--epochs 8] [--seed 0]

Needs Debian's `dataset-fashion-mnist` or the same files from Zalando's repository, and about ten
minutes on two cores.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgecompress.compress.finetune.memory_order import channels_last, usual_order
from edgecompress.model.demo import FOLDER
from edgecompress.model.demo.network import DemoNet

VALIDATION_IMAGES = 1_000
BUNDLED_TRAIN_IMAGES = 10_000
BUNDLED_TEST_IMAGES = 2_000
MAXIMUM_SHIFT = 2


def read_idx(path: Path) -> np.ndarray:
    """An idx.gz file of unsigned bytes; the third magic byte must say so (0x08)."""
    raw = gzip.decompress(path.read_bytes())
    if raw[2] != 0x08:
        raise SystemExit(f"{path} holds element type {raw[2]:#x}, not unsigned bytes (0x8).")
    dimensions = raw[3]
    shape = np.frombuffer(raw, ">u4", dimensions, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def read_splits(source: Path) -> dict[str, np.ndarray]:
    """{train,validation,test}_{x,y}: x [N, 1, 28, 28] uint8, y [N] uint8."""
    x = read_idx(source / "train-images-idx3-ubyte.gz")[:, None]
    y = read_idx(source / "train-labels-idx1-ubyte.gz")
    return {
        "train_x": x[:-VALIDATION_IMAGES],
        "train_y": y[:-VALIDATION_IMAGES],
        "validation_x": x[-VALIDATION_IMAGES:],
        "validation_y": y[-VALIDATION_IMAGES:],
        "test_x": read_idx(source / "t10k-images-idx3-ubyte.gz")[:, None],
        "test_y": read_idx(source / "t10k-labels-idx1-ubyte.gz"),
    }


def write_data(splits: dict[str, np.ndarray]) -> None:
    counts = {"train": BUNDLED_TRAIN_IMAGES, "test": BUNDLED_TEST_IMAGES}
    bundled = {
        name: np.ascontiguousarray(array[: counts.get(name.split("_")[0])])
        for name, array in splits.items()
    }
    np.savez_compressed(FOLDER / "data.npz", **bundled)


def augment(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One random shift of up to two pixels for the batch, and a mirror image of every other one."""
    down, right = torch.randint(-MAXIMUM_SHIFT, MAXIMUM_SHIFT + 1, (2,), generator=generator)
    padded = nn.functional.pad(x, (MAXIMUM_SHIFT,) * 4)
    top, left = MAXIMUM_SHIFT + int(down), MAXIMUM_SHIFT + int(right)
    shifted = padded[:, :, top : top + x.shape[2], left : left + x.shape[3]]
    mirror = torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5
    return torch.where(mirror, shifted.flip(3), shifted)


def to_float(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x.astype(np.float32) / 255)


def accuracy(model: nn.Module, x: np.ndarray, y: np.ndarray) -> float:
    """Top-1 in percent."""
    model.eval()
    with torch.no_grad():
        correct = sum(
            int((model(to_float(part)).argmax(1).numpy() == labels).sum())
            for part, labels in zip(
                np.array_split(x, len(x) // 500), np.array_split(y, len(y) // 500), strict=True
            )
        )
    return 100 * correct / len(y)


def train(splits: dict[str, np.ndarray], *, epochs: int, batch: int, seed: int) -> DemoNet:
    """SGD with Nesterov momentum on a one-cycle schedule, label smoothing 0.05."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = DemoNet()
    channels_last(model)
    x, y = splits["train_x"], torch.from_numpy(splits["train_y"].astype(np.int64))
    steps = len(x) // batch
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.12, total_steps=epochs * steps, pct_start=0.25, final_div_factor=1000
    )
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    for epoch in range(epochs):
        model.train()
        started, total = time.monotonic(), 0.0
        order = torch.randperm(len(x), generator=generator)
        for step in range(steps):
            chosen = order[step * batch : (step + 1) * batch]
            images = augment(to_float(x[chosen.numpy()]), generator)
            loss = loss_of(model(images.to(memory_format=torch.channels_last)), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        validation = accuracy(model, splits["validation_x"], splits["validation_y"])
        seconds = time.monotonic() - started
        print(
            f"epoch {epoch + 1}/{epochs}: loss {total / steps:.4f}, "
            f"validation {validation:.2f} %, {seconds:.0f} s",
            flush=True,
        )
    usual_order(model)
    return model


def write_weights(model: DemoNet) -> None:
    """Half-precision parameters and statistics; BatchNorm's batch counters are left out."""
    arrays = {
        name: value.contiguous().numpy().astype(np.float16)
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    np.savez_compressed(FOLDER / "weights.npz", **arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-only", action="store_true", help="write data.npz and stop")
    options = parser.parse_args()
    splits = read_splits(options.source)
    write_data(splits)
    if options.data_only:
        return
    model = train(splits, epochs=options.epochs, batch=options.batch, seed=options.seed)
    write_weights(model)
    from edgecompress.model.demo import demo_model

    shipped = demo_model()
    report = {
        "trained_on_images": len(splits["train_x"]),
        "epochs": options.epochs,
        "batch": options.batch,
        "seed": options.seed,
        "torch": torch.__version__,
        "validation_top1_percent": round(
            accuracy(shipped, splits["validation_x"], splits["validation_y"]), 2
        ),
        "test_top1_percent_of_10000": round(
            accuracy(shipped, splits["test_x"], splits["test_y"]), 2
        ),
    }
    (FOLDER / "training.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
