"""AdaRound and bias correction: never worse on what they minimise, and better on the outputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_networks import NETWORKS, Residual, seeded
from torch import nn

from edgecompress.compress.batchnorm import fold
from edgecompress.compress.quantize import QuantizeOptions, quantize
from edgecompress.compress.quantize.adaround import adaround, moments
from edgecompress.compress.quantize.prepare import prepare
from edgecompress.compress.quantize.weights import make_grid
from edgecompress.model.reference import run_onnx
from edgecompress.records import WeightStorage

X = np.random.default_rng(0).normal(size=(64, 1, 16, 16)).astype(np.float32)
INT4 = WeightStorage(format="int4")
torch.manual_seed(0)
LAYERS = [
    nn.Conv2d(6, 8, 3, padding=1),
    nn.Conv2d(6, 9, 3, stride=2, dilation=2, groups=3),
    nn.Conv2d(6, 6, 3, padding="same", groups=6),
    nn.Conv2d(6, 5, 1, bias=False),
    nn.Linear(6 * 64, 5),
]


def inputs(layer: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(6, 6, generator=generator)
    x = torch.einsum("oi,nihw->nohw", mixing, torch.randn(40, 6, 8, 8, generator=generator)).relu()
    rounded = (x / 0.2).round() * 0.2
    if isinstance(layer, nn.Linear):
        return x.flatten(1), rounded.flatten(1)
    return x, rounded


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_moments_give_the_layers_error(layer: nn.Conv2d | nn.Linear) -> None:
    x, rounded = inputs(layer)
    other = layer.weight.detach() + 0.05 * torch.randn_like(layer.weight)
    with torch.no_grad():
        bias = 0 if layer.bias is None else layer.bias.reshape((-1,) + (1,) * (x.dim() - 2))
        exact = layer(x) - bias
        kept, layer.weight.data = layer.weight.data, other
        made = layer(rounded) - bias
        layer.weight.data = kept
        expected = (made - exact).square().transpose(0, 1).flatten(1).mean(1)
        found = moments(layer, x, rounded).error(layer.weight.flatten(1), other.flatten(1))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    known, flat = moments(layer, x, rounded), layer.weight.detach().flatten(1)
    made = other.flatten(1).requires_grad_()
    known.error(flat, made).sum().backward()
    assert made.grad is not None
    torch.testing.assert_close(
        known.slope(known.pull(flat), made.detach()), made.grad, rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("form", [None, INT4], ids=["int8", "int4"])
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_no_output_gets_worse_than_by_nearest_rounding(
    layer: nn.Conv2d | nn.Linear, form: WeightStorage | None
) -> None:
    x, rounded = inputs(layer)
    weight = layer.weight.detach()
    grid = make_grid(weight.numpy(), np.zeros(len(weight), np.float32), np.float32(0.1), form)
    known = moments(layer, x, rounded)
    found = adaround(weight, grid, known)
    np.testing.assert_array_equal(grid.real(grid.round(found.numpy())), found.numpy())
    assert (found - weight).abs().max() <= grid.scale.max() * 1.001
    nearest = torch.from_numpy(grid.real(grid.round(weight.numpy())))
    ours, theirs = (known.error(weight.flatten(1), one.flatten(1)) for one in (found, nearest))
    assert (ours <= theirs).all()
    if form is INT4 and layer.weight[0].numel() > 9:
        assert float(ours.sum()) < 0.9 * float(theirs.sum())


def test_zeros_are_not_rounded_up() -> None:
    layer = nn.Conv2d(6, 8, 3)
    layer.weight.data[torch.rand(layer.weight.shape) < 0.6] = 0
    weight = layer.weight.detach()
    grid = make_grid(weight.numpy(), np.zeros(8, np.float32), np.float32(0.1), INT4)
    found = adaround(weight, grid, moments(layer, *inputs(layer)))
    assert not found[weight == 0].any()


def test_sparse_layers_keep_their_zeros_and_small_weights_may_move() -> None:
    before = seeded(Residual)
    weights = {"conv3": WeightStorage(format="sparse", sparsity=0.5), "conv2": INT4}
    made = prepare(before, X, weights, QuantizeOptions(rounding="adaround"))
    assert float((made.graph.get_submodule("conv3").weight == 0).float().mean()) >= 0.5
    plain = prepare(before, X, weights)
    was = plain.graph.get_submodule("conv2").weight == 0
    assert made.graph.get_submodule("conv2").weight[was].any()


def output_error(options: QuantizeOptions, weights: dict[str, WeightStorage]) -> float:
    before = seeded(Residual)
    expected = before.graph(torch.from_numpy(X)).detach().numpy()
    outputs = run_onnx(quantize(before, X, name="r", weights=weights, options=options), X)
    return float(np.mean((outputs - expected) ** 2)) / float(expected.var())


def test_int4_outputs_come_closer_with_each_of_them() -> None:
    weights = dict.fromkeys(("stem", "conv1", "conv2", "conv3", "skip", "head"), INT4)
    plain = output_error(QuantizeOptions(), weights)
    assert output_error(QuantizeOptions(rounding="adaround"), weights) < 0.5 * plain
    assert output_error(QuantizeOptions(correct_bias=True), weights) < 0.7 * plain


@pytest.mark.parametrize("build", NETWORKS)
def test_bias_correction_removes_the_mean_error_of_every_channel(build: type[nn.Module]) -> None:
    before = fold(seeded(build))
    names = [
        name
        for name, module in before.graph.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    weights = dict.fromkeys(names, WeightStorage(format="shared4"))
    made = {
        on: prepare(before, X, weights, QuantizeOptions(correct_bias=on)) for on in (False, True)
    }
    first = names[0]

    def mean_error(on: bool) -> float:
        """Of the first weighted layer, whose input is the model's own."""
        graph = made[on].graph
        cut = replace(before, graph=graph).graph
        seen: dict[str, torch.Tensor] = {}
        handles = [
            one.get_submodule(first).register_forward_hook(
                lambda _module, _inputs, output, key=key: seen.update({key: output})
            )
            for key, one in (("float", before.graph), ("rounded", cut))
        ]
        with torch.no_grad():
            before.graph(torch.from_numpy(X))
            cut(torch.from_numpy(X))
        for handle in handles:
            handle.remove()
        error = seen["rounded"] - seen["float"]
        return float(error.transpose(0, 1).flatten(1).mean(1).abs().max())

    assert mean_error(True) < 0.1 * mean_error(False)
