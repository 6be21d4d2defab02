"""CP and spatial factorization, and ranks by energy: tensors of known rank are found again, and
fitting to data is better on the outputs than fitting to the weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_networks import Residual, seeded
from test_lowrank import correlated_inputs, output_error
from torch import nn

from edgecompress.compress.lowrank import (
    choose_ranks,
    factored_macs,
    factored_weights,
    factorize,
    factors_of,
    methods_of,
    rank_for_energy,
)
from edgecompress.compress.lowrank.cp import decomposed, squared_error
from edgecompress.errors import BadInput
from edgecompress.model.trainable import Trainable
from edgecompress.records import LowRank

RNG = np.random.default_rng(7)


def random(*shape: int) -> torch.Tensor:
    return torch.from_numpy(RNG.normal(size=shape))


def known(method: str, rank: int, shape: tuple[int, int, int, int]) -> torch.Tensor:
    """A weight [O, I, kh, kw] that is exactly of this rank."""
    out, into, tall, wide = shape
    if method == "cp":
        return torch.einsum(
            "or,ir,hr,wr->oihw",
            *(random(size, rank) for size in shape),
        )
    if method == "spatial":
        return torch.einsum("rih,orw->oihw", random(rank, into, tall), random(out, rank, wide))
    if method == "tucker2":
        core = random(rank, rank, tall, wide)
        return torch.einsum("oq,qpkl,ip->oikl", random(out, rank), core, random(into, rank))
    return (random(out, rank) @ random(rank, into)).reshape(shape)


class One(nn.Module):
    """Four kinds of correlated channels, then the layer under test."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.widen = nn.Conv2d(1, 8, 3, padding=1)
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.relu(self.widen(x)))


def one(layer: nn.Conv2d, weight: torch.Tensor | None = None) -> Trainable:
    torch.manual_seed(11)
    network = One(layer)
    if weight is not None:
        with torch.no_grad():
            layer.weight.copy_(weight)
    return Trainable(torch.fx.symbolic_trace(network).eval(), torch.zeros(1, 1, 16, 16), "x", "y")


def conv(shape: tuple[int, int, int, int], **window: object) -> nn.Conv2d:
    return nn.Conv2d(shape[1], shape[0], shape[2:], **window)  # type: ignore[arg-type]


SHAPES = {"cp": (12, 8, 3, 3), "spatial": (12, 8, 3, 5), "tucker2": (12, 8, 3, 3)}


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("method", SHAPES)
def test_tensors_of_known_rank_are_recovered_exactly(
    method: str, rank: int, calibrated: bool
) -> None:
    weight = known(method, rank, SHAPES[method])
    before = one(conv(SHAPES[method], stride=(2, 1), padding=(1, 2)), weight)
    ranks = (rank, rank) if method == "tucker2" else (rank,)
    x = correlated_inputs()
    choice = {"layer": LowRank(method=method, ranks=ranks)}
    after = factorize(before, choice, x if calibrated else None)
    wanted = before.graph(x).detach()
    torch.testing.assert_close(after.graph(x), wanted, rtol=1e-3, atol=1e-4 * float(wanted.std()))


@pytest.mark.parametrize("method", ["svd", "tucker2", "spatial", "cp"])
def test_energy_finds_the_known_rank(method: str) -> None:
    shape = (12, 8, 1, 1) if method == "svd" else (12, 8, 3, 3)
    layer = conv(shape)
    with torch.no_grad():
        layer.weight.copy_(known(method, 3, shape))
    ranks = rank_for_energy(layer, method, 1 - 1e-6)  # type: ignore[arg-type]
    assert ranks == ((3, 3) if method == "tucker2" else (3,))


WINDOWS = [
    {},
    {"stride": 2, "padding": 1},
    {"padding": (0, 2)},
    {"stride": (1, 2), "dilation": (2, 1), "padding": (2, 0)},
]


@pytest.mark.parametrize("window", WINDOWS)
def test_full_rank_spatial_is_exact_for_every_window(window: dict[str, object]) -> None:
    before = one(conv((6, 8, 3, 3), **window))
    x = correlated_inputs(4)
    after = factorize(before, {"layer": LowRank(method="spatial", ranks=(18,))})
    torch.testing.assert_close(after.graph(x), before.graph(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("method", "rank"), [("spatial", 2), ("spatial", 6), ("cp", 2), ("cp", 8)])
def test_data_beats_weights_on_the_outputs(method: str, rank: int) -> None:
    """Strictly, and on inputs that were not seen."""
    before = one(conv((12, 8, 3, 3), padding=1))
    choice = {"layer": LowRank(method=method, ranks=(rank,))}
    plain = factorize(before, choice)
    aware = factorize(before, choice, correlated_inputs(256))
    fresh = correlated_inputs(300)[256:]
    assert output_error(before, aware, fresh) < 0.8 * output_error(before, plain, fresh)


@pytest.mark.parametrize("method", ["spatial", "cp"])
def test_error_falls_as_the_rank_grows(method: str) -> None:
    before, x = one(conv((12, 8, 3, 3), padding=1)), correlated_inputs()
    errors = [
        output_error(
            before, factorize(before, {"layer": LowRank(method=method, ranks=(rank,))}, x), x
        )
        for rank in (1, 4, 10, 16)
    ]
    assert errors == sorted(errors, reverse=True)


def test_factors_have_the_shapes_of_the_papers() -> None:
    before = seeded(Residual)
    spatial = factorize(before, {"conv3": LowRank(method="spatial", ranks=(5,))}).graph
    first, last = (spatial.get_submodule(f"conv3_{end}") for end in ("first", "last"))
    assert (first.weight.shape, last.weight.shape) == ((5, 8, 3, 1), (16, 5, 1, 3))
    assert (first.stride, last.stride, last.padding) == ((2, 1), (1, 2), (0, 1))
    polyadic = factorize(before, {"conv3": LowRank(method="cp", ranks=(5,))}).graph
    ends = ("first", "vertical", "horizontal", "last")
    parts = [polyadic.get_submodule(f"conv3_{end}") for end in ends]
    assert [tuple(part.weight.shape) for part in parts] == [
        (5, 8, 1, 1), (5, 1, 3, 1), (5, 1, 1, 3), (16, 5, 1, 1),
    ]  # fmt: skip
    assert [part.groups for part in parts] == [1, 5, 5, 1]
    assert [part.bias is None for part in parts] == [True, True, True, False]
    bias = before.graph.get_submodule("conv3").bias
    assert torch.equal(parts[3].bias, bias)
    assert torch.equal(last.bias, bias)


@pytest.mark.parametrize("method", ["svd", "tucker2", "spatial", "cp"])
def test_factored_weights_counts_what_is_made(method: str) -> None:
    shape = (12, 8, 1, 1) if method == "svd" else (12, 8, 3, 3)
    before = one(conv(shape))
    choice = LowRank(method=method, ranks=(4, 5) if method == "tucker2" else (4,))
    after = factorize(before, {"layer": choice}).graph
    made = sum(
        module.weight.numel()
        for name, module in after.named_modules()
        if name.startswith("layer_") and isinstance(module, nn.Conv2d)
    )
    assert made == factored_weights(before.graph.get_submodule("layer"), choice)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("method", ["svd", "tucker2", "spatial", "cp"])
def test_factored_macs_counts_what_runs(method: str, stride: int) -> None:
    size = 1 if method == "svd" else 3
    layer = nn.Conv2d(8, 12, size, stride=stride, padding=size // 2)
    choice = LowRank(method=method, ranks=(3, 5) if method == "tucker2" else (3,))
    factors = [factor for _, factor in factors_of(layer, choice, None)]
    x, ran = torch.zeros(1, 8, 16, 16), 0
    for factor in factors:
        x = factor(x)
        ran += factor.weight.numel() * x.shape[2] * x.shape[3]
    assert ran == factored_macs(layer, choice, 16 * 16, x.shape[2] * x.shape[3])


def test_a_kernel_of_one_row_has_no_vertical_part() -> None:
    before = one(conv((12, 8, 1, 5)), known("cp", 2, (12, 8, 1, 5)))
    assert set(methods_of(before.graph.get_submodule("layer"))) == {"tucker2", "cp"}
    after = factorize(before, {"layer": LowRank(method="cp", ranks=(2,))})
    names = [name for name, _ in after.graph.named_modules() if name.startswith("layer_")]
    assert names == ["layer_first", "layer_horizontal", "layer_last"]
    x = correlated_inputs(4)
    torch.testing.assert_close(after.graph(x), before.graph(x), rtol=1e-3, atol=1e-4)


def test_polyadic_error_is_no_worse_than_one_svd_term() -> None:
    """Rank 1 of a matrix in disguise: the best rank-1 term is the leading singular one."""
    weight = random(9, 7, 1, 1)
    values = torch.linalg.svdvals(weight.flatten(1))
    error = squared_error(weight, decomposed(weight, 1, None))
    assert error == pytest.approx(float(values[1:].square().sum()), rel=1e-4)


@pytest.mark.parametrize(
    ("method", "energy"),
    [*((one, at) for one in ("svd", "spatial", "tucker2") for at in (0.5, 0.9, 0.99)), ("cp", 0.6)],
)
def test_chosen_ranks_keep_the_energy(method: str, energy: float) -> None:
    shape = (12, 8, 1, 1) if method == "svd" else (12, 8, 3, 3)
    before = one(conv(shape, bias=False))
    layer = before.graph.get_submodule("layer")
    ranks = rank_for_energy(layer, method, energy)  # type: ignore[arg-type]
    after = factorize(before, {"layer": LowRank(method=method, ranks=ranks)}).graph
    impulse = torch.zeros(1, 8, 7, 7)
    missing = kept = 0.0
    for channel in range(8):
        impulse.zero_()[0, channel, 3, 3] = 1
        wanted, made = layer(impulse), impulse
        for name, module in after.named_modules():
            if name.startswith("layer_"):
                made = module(made)
        missing += (wanted - made).square().sum().item()
        kept += wanted.square().sum().item()
    assert missing <= (1 - energy) * kept * 1.001
    if energy < 0.9:
        assert ranks != methods_of(layer)[method]


def test_choose_ranks_takes_the_smallest_and_leaves_what_does_not_shrink() -> None:
    before = seeded(Residual)
    chosen = choose_ranks(before, 0.7, calibration=correlated_inputs())
    assert chosen
    for name, choice in chosen.items():
        layer = before.graph.get_submodule(name)
        assert factored_weights(layer, choice) < layer.weight.numel()
        for method in methods_of(layer):
            if method != "cp":
                only = choose_ranks(
                    before, 0.7, method=method, calibration=correlated_inputs(), layers=[name]
                ).get(name)
                assert only is None or factored_weights(layer, only) >= factored_weights(
                    layer, choice
                )
    assert choose_ranks(before, 1.0) == {}


def test_bad_settings_are_refused() -> None:
    before = seeded(Residual)
    with pytest.raises(BadInput, match=r"energy of 1\.5 is out of range"):
        choose_ranks(before, 1.5)
    with pytest.raises(BadInput, match=r"no layer 'norm3' to factorize\. Layers that can be: stem"):
        choose_ranks(before, 0.9, layers=["norm3"])
    with pytest.raises(BadInput, match="it takes svd with ranks"):
        factorize(before, {"skip": LowRank(method="cp", ranks=(2,))})
    with pytest.raises(BadInput, match=r"rank 60 is not in 1\.\.24"):
        factorize(before, {"conv3": LowRank(method="spatial", ranks=(60,))})


def test_reruns_are_equal() -> None:
    choice = {
        "conv3": LowRank(method="cp", ranks=(5,)),
        "conv1": LowRank(method="spatial", ranks=(5,)),
    }
    first, second = (factorize(seeded(Residual), choice, correlated_inputs()) for _ in range(2))
    for one_, other in zip(first.graph.parameters(), second.graph.parameters(), strict=True):
        assert torch.equal(one_, other)
