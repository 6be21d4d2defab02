"""Quantization-aware training: what it promises is what quantize writes."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from small_networks import NETWORKS, Residual, seeded, stripes
from torch import nn

from edgecompress.compress.batchnorm import reestimate
from edgecompress.compress.finetune import Recipe, distill
from edgecompress.compress.groups import find_groups
from edgecompress.compress.prune import prune
from edgecompress.compress.quantize import evaluate_deployable, quantize
from edgecompress.compress.quantize.fake import fake_activations
from edgecompress.compress.quantize.prepared import Quantized, weighted_nodes
from edgecompress.errors import BadInput
from edgecompress.model.data import Dataset, Splits, load_data
from edgecompress.model.load import load_source
from edgecompress.model.reference import run_onnx
from edgecompress.model.trainable import Trainable, to_trainable
from edgecompress.records import WeightStorage

MIXED = {
    "conv1": WeightStorage(format="int4"),
    "conv2": WeightStorage(format="shared16"),
    "conv3": WeightStorage(format="shared4"),
    "skip": WeightStorage(format="sparse", sparsity=0.5),
}


@pytest.fixture(scope="module")
def splits() -> Splits:
    return Splits(stripes(600, 0), stripes(200, 1), stripes(400, 2), "", "stripes")


@pytest.fixture(scope="module")
def teacher(splits: Splits) -> Trainable:
    untrained = seeded(Residual)
    recipe = Recipe(learning_rate=8e-3)
    return distill(untrained, untrained, splits, steps=90, seed=0, recipe=recipe)


@pytest.fixture(scope="module")
def mixed(teacher: Trainable, splits: Splits) -> Quantized:
    recipe = Recipe(learning_rate=4e-3)
    made = distill(teacher, teacher, splits, steps=60, seed=0, weights=MIXED, recipe=recipe)
    assert isinstance(made, Quantized)
    return made


def weights_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    ending = ".weight_quantized"
    return {
        tensor.name.removesuffix(ending): numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.name.endswith(ending)
    }


def simulated(model: Quantized, x: np.ndarray) -> np.ndarray:
    """The graph's own forward pass with its activations rounded."""
    graph = copy.deepcopy(model.graph)
    fake_activations(graph, model.activations)
    with torch.no_grad():
        return graph.eval()(torch.from_numpy(x)).numpy()


def test_the_deployable_computes_what_training_saw(mixed: Quantized, splits: Splits) -> None:
    x = splits.test.x
    ours, theirs = simulated(mixed, x), run_onnx(quantize(mixed, x[:1], name="small"), x)
    step = float(mixed.activations["head"].scale)
    assert np.abs(ours - theirs).max() <= 1.01 * step
    # Sums in another order tip a tie now and then.
    assert np.mean(np.abs(ours - theirs) > 0.01 * step) < 0.005
    assert np.mean(ours.argmax(1) == theirs.argmax(1)) > 0.99


def test_formats_survive_training(mixed: Quantized) -> None:
    weights = weights_of(quantize(mixed, np.zeros((1, 1, 16, 16), np.float32), name="small"))
    assert np.abs(weights["conv1"]).max() <= 7
    assert len(np.unique(weights["conv2"])) <= 16
    assert len(np.unique(weights["conv3"])) <= 4
    assert np.mean(weights["skip"] == 0) >= 0.5
    assert np.abs(weights["head"]).max() == 127
    for name, stored in weights.items():
        real = mixed.graph.get_submodule(name).weight.detach().numpy()
        np.testing.assert_array_equal(mixed.grids[name].real(stored), real)


@pytest.mark.parametrize("form", ["int4", "shared4"])
def test_training_wins_back_what_rounding_took(
    teacher: Trainable, splits: Splits, form: str
) -> None:
    storage = WeightStorage(format=form)  # type: ignore[arg-type]
    weights = dict.fromkeys(("stem", "conv1", "conv2", "conv3", "skip", "head"), storage)
    calibration = splits.train.x[:200]
    rounded = quantize(teacher, calibration, name="small", weights=weights)
    recipe = Recipe(learning_rate=4e-3)
    trained = distill(teacher, teacher, splits, steps=60, seed=0, weights=weights, recipe=recipe)
    after = evaluate_deployable(quantize(trained, calibration, name="small"), splits.test)
    assert after >= evaluate_deployable(rounded, splits.test)
    assert after > 90


@pytest.mark.parametrize("build", NETWORKS)
def test_every_network_trains_and_exports(build: type[nn.Module], splits: Splits) -> None:
    teacher = seeded(build)
    recipe = Recipe(quantization_aware=True, batch_size=16)
    made = distill(teacher, teacher, splits, steps=6, seed=0, recipe=recipe)
    assert isinstance(made, Quantized)
    x = splits.test.x[:50]
    theirs = run_onnx(quantize(made, x, name="small"), x)
    assert np.corrcoef(simulated(made, x).ravel(), theirs.ravel())[0, 1] > 0.999


def test_zeros_of_a_pruned_layer_stay_through_training(teacher: Trainable, splits: Splits) -> None:
    student = replace(teacher, graph=copy.deepcopy(teacher.graph))
    weight = student.graph.get_submodule("conv3").weight
    mask = torch.rand(weight.shape, generator=torch.Generator().manual_seed(0)) < 0.8
    weight.data[mask] = 0
    sparse = {"conv3": WeightStorage(format="sparse", sparsity=0.75)}
    made = distill(student, teacher, splits, steps=10, seed=0, weights=sparse)
    assert not made.graph.get_submodule("conv3").weight[mask].any()
    assert made.graph.get_submodule("conv3").weight[~mask].any()


def test_no_steps_means_calibration_alone(teacher: Trainable, splits: Splits) -> None:
    few = replace(splits, train=Dataset(splits.train.x[:400], None))
    made = distill(teacher, teacher, few, steps=0, seed=0, weights=MIXED)
    direct = quantize(teacher, few.train.x, name="small", weights=MIXED)
    assert quantize(made, splits.train.x[:1], name="small") == direct


def test_the_last_step_sees_everything_rounded(teacher: Trainable, splits: Splits) -> None:
    storage = dict.fromkeys(("conv1", "conv2", "conv3", "head"), WeightStorage(format="shared4"))
    few = replace(splits, train=Dataset(splits.train.x[:400], None))
    recipe = Recipe(learning_rate=4e-3, float_share=1.0)
    before, after = (
        distill(teacher, teacher, few, steps=steps, seed=0, weights=storage, recipe=recipe)
        for steps in (0, 20)
    )
    head = "head.weight"
    assert not torch.equal(before.graph.get_parameter(head), after.graph.get_parameter(head))


def test_ruinous_training_is_not_kept(teacher: Trainable, splits: Splits) -> None:
    recipe = Recipe(learning_rate=5.0)
    few = replace(splits, train=Dataset(splits.train.x[:400], splits.train.y[:400]))
    made = distill(teacher, teacher, few, steps=8, seed=0, weights=MIXED, recipe=recipe)
    direct = quantize(teacher, few.train.x, name="small", weights=MIXED)
    assert evaluate_deployable(
        quantize(made, splits.train.x[:1], name="small"), splits.validation
    ) >= evaluate_deployable(direct, splits.validation)


def test_what_was_trained_is_written_or_refused(mixed: Quantized, splits: Splits) -> None:
    x = splits.train.x[:4]
    assert quantize(mixed, x, name="small", weights=MIXED) == quantize(mixed, x, name="small")
    with pytest.raises(BadInput, match="'conv1' was trained for int4 weights, not for int8"):
        other = {name: storage for name, storage in MIXED.items() if name != "conv1"}
        quantize(mixed, x, name="small", weights=other)
    with pytest.raises(BadInput, match="changed after quantization-aware training"):
        quantize(prune(mixed, {"conv3": 8}), x, name="small")


def test_the_same_seed_gives_the_same_file(teacher: Trainable, splits: Splits) -> None:
    files = {
        quantize(
            distill(teacher, teacher, splits, steps=6, seed=5, weights=MIXED),
            splits.train.x[:1],
            name="small",
        ).SerializeToString(deterministic=True)
        for _ in range(2)
    }
    assert len(files) == 1


def test_on_the_demo_training_for_few_bits_beats_rounding_afterwards() -> None:
    """Two bits a weight: the same steps with and without rounding in them."""
    source = load_source("demo")
    teacher = to_trainable(source)
    data = load_data("demo", input_shape=source.input_shape)
    small = replace(
        data,
        train=Dataset(data.train.x[:640], data.train.y[:640]),
        validation=Dataset(data.validation.x[:150], data.validation.y[:150]),
    )
    widths = {one.name: max(4, one.channels // 16 * 4) for one in find_groups(teacher)}
    x = torch.from_numpy(small.train.x[:128])
    student = reestimate(prune(teacher, widths), x)
    storage = WeightStorage(format="shared4")
    weights = dict.fromkeys((row.target for row in weighted_nodes(student.graph)), storage)
    recipe = Recipe(learning_rate=3e-3, checks=2)
    accuracies = []
    for trained in (None, weights):
        made = distill(student, teacher, small, steps=40, seed=0, weights=trained, recipe=recipe)
        deployable = quantize(made, small.train.x[:128], name="demo", weights=weights)
        part = Dataset(data.test.x[:500], data.test.y[:500])
        accuracies.append(evaluate_deployable(deployable, part))
    assert accuracies[1] > accuracies[0] + 3
