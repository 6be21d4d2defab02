"""A folder with one subfolder of images per class, as arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from edgecompress.errors import BadData

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def read_image_folder(folder: Path, input_shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Images as x [N, C, H, W] float32 in [0, 1] and y [N] int64.

    Classes are numbered in the alphabetical order of the subfolders. Images are converted to grey
    or RGB by the model's channel count, and never resized: how to resize is the trainer's choice.

    Raises:
        BadData: no images, an image that cannot be read or has another size than the model takes.
    """
    if len(input_shape) != 4 or input_shape[1] not in _MODES:
        raise BadData(
            f"'{folder}' is a folder of images, but the model takes {list(input_shape)}.",
            next_step="Give a .npz with x in the model's shape.",
        )
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    files = [
        (path, label)
        for label, entry in enumerate(classes)
        for path in sorted(entry.iterdir())
        if path.suffix.lower() in _SUFFIXES
    ]
    if not files:
        raise BadData(
            f"'{folder}' has {len(classes)} subfolders and no images in them.",
            next_step="Put the images of each class into a subfolder named after it.",
        )
    x = np.stack([_read_image(path, input_shape) for path, _ in files])
    return {"x": x, "y": np.array([label for _, label in files], np.int64)}


def _read_image(path: Path, input_shape: tuple[int, ...]) -> np.ndarray:
    _, channels, height, width = input_shape
    try:
        with Image.open(path) as image:
            size = image.size
            pixels = np.asarray(image.convert(_MODES[channels]), np.float32) / 255
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise BadData(
            f"'{path}' is not a readable image.", next_step="Remove or replace it."
        ) from error
    if size != (width, height):
        raise BadData(
            f"'{path}' is {size[0]}x{size[1]} pixels, but the model takes {width}x{height}.",
            next_step="Resize the images as for training.",
        )
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
