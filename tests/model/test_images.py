"""A folder of images becomes labelled arrays in [0, 1]."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecompress.errors import BadData
from edgecompress.model.data import load_data
from edgecompress.model.images import read_image_folder

GREY = (1, 1, 6, 5)
COLOUR = (1, 3, 6, 5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Classes "cat" and "dog" of 4 images, 5 wide and 6 high, pixel (2, 1) marked."""
    for label, name in enumerate(["cat", "dog"]):
        (tmp_path / name).mkdir()
        for index in range(4):
            pixels = np.full((6, 5, 3), 10 * index, np.uint8)
            pixels[2, 1] = [255, 51 * label, 0]
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    return tmp_path


def test_colour(folder: Path):
    arrays = read_image_folder(folder, COLOUR)
    assert arrays["x"].shape == (8, 3, 6, 5)
    assert arrays["x"].dtype == np.float32
    assert arrays["y"].tolist() == [0] * 4 + [1] * 4
    np.testing.assert_allclose(arrays["x"][4, :, 2, 1], [1.0, 0.2, 0.0])
    np.testing.assert_allclose(arrays["x"][1, :, 0, 0], 10 / 255)


def test_grey(folder: Path):
    arrays = read_image_folder(folder, GREY)
    assert arrays["x"].shape == (8, 1, 6, 5)
    # ITU-R 601: 0.299 of red.
    assert arrays["x"][0, 0, 2, 1] == pytest.approx(0.299, abs=1 / 255)


def test_through_load_data(folder: Path):
    splits = load_data(str(folder), input_shape=COLOUR)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (6, 1, 1)
    assert splits.name == folder.name


def test_another_size(folder: Path):
    with pytest.raises(BadData, match=r"0.png' is 5x6 pixels, but the model takes 8x8"):
        load_data(str(folder), input_shape=(1, 3, 8, 8))


def test_damaged_image(folder: Path):
    (folder / "dog" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    with pytest.raises(BadData, match=r"dog.2\.png' is not a readable image"):
        load_data(str(folder), input_shape=COLOUR)


def test_folders_without_images(tmp_path: Path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("none yet")
    with pytest.raises(BadData, match="1 subfolders and no images"):
        load_data(str(tmp_path), input_shape=COLOUR)


def test_model_that_takes_no_images(folder: Path):
    with pytest.raises(BadData, match=r"the model takes \[1, 12\]"):
        load_data(str(folder), input_shape=(1, 12))
