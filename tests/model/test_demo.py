"""The bundled model and data are what the README beside them says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from edgecompress.model.demo import FOLDER, demo_data, demo_model
from edgecompress.model.inspect import inspect_source
from edgecompress.model.load import load_source
from edgecompress.model.trainable import to_trainable

MIB = 1024**2


@pytest.fixture(scope="module")
def source():
    return load_source("demo")


def test_files_are_small_and_licensed():
    assert (FOLDER / "data.npz").stat().st_size <= 8 * MIB
    assert (FOLDER / "weights.npz").stat().st_size <= 3 * MIB
    assert "Zalando" in (FOLDER / "LICENSE").read_text()


def test_data():
    data = demo_data()
    for split, count in (("train", 10_000), ("validation", 1_000), ("test", 2_000)):
        x, y = data[f"{split}_x"], data[f"{split}_y"]
        assert (x.shape, x.dtype) == ((count, 1, 28, 28), np.float32)
        assert (x.min(), x.max()) == (0.0, 1.0)
        assert (y.dtype, set(y.tolist())) == (np.int64, set(range(10)))
    seen = {image.tobytes() for image in data["train_x"]}
    assert not seen & {image.tobytes() for image in data["validation_x"]}


def test_accuracy_on_the_bundled_test_images():
    data = demo_data()
    with torch.no_grad():
        answers = demo_model()(torch.from_numpy(data["test_x"])).argmax(1).numpy()
    assert 100 * (answers == data["test_y"]).mean() == pytest.approx(93.45, abs=0.1)
    assert json.loads((FOLDER / "training.json").read_text())["test_top1_percent_of_10000"] >= 91.5


def test_int8_weights_alone_overflow_one_mebibyte_and_activations_do_not(source):
    made = inspect_source(source)
    assert made.weight_bytes_int8 > MIB
    assert made.peak_live_bytes_int8 < 320 * 1024
    assert made.macs <= 30_000_000


def test_trainable_form_gives_the_same_logits(source):
    x = torch.from_numpy(demo_data()["test_x"][:8])
    trainable = to_trainable(source)
    with torch.no_grad():
        np.testing.assert_allclose(trainable.graph(x), demo_model()(x), atol=1e-4)
    names = {node.name for node in trainable.graph.graph.nodes}
    assert {"stem_conv", "stem_norm", "stage2_1_conv2", "stage3_0_shortcut_norm"} <= names
    assert {"stage1_0_add", "classifier", "pool"} <= names
