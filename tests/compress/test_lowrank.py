from __future__ import annotations

import pytest
import torch
from small_networks import Mobile, Residual, seeded
from torch import nn

from edgecompress.compress.lowrank import factorize, largest_ranks
from edgecompress.errors import BadInput
from edgecompress.model.trainable import Trainable
from edgecompress.records import LowRank


def correlated_inputs(count: int = 64) -> torch.Tensor:
    """Smooth images: neighbouring pixels agree, so a few directions carry most of the energy."""
    noise = torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    return nn.functional.avg_pool2d(noise, 5, 1, 2) * 4


LAYERS = [
    (Residual, "conv3", "tucker2"),
    (Residual, "skip", "svd"),
    (Residual, "head", "svd"),
    (Residual, "stem", "tucker2"),
    (Mobile, "dense", "svd"),
    (Mobile, "pointwise", "svd"),
]


def full_rank(before: Trainable, name: str) -> tuple[int, ...]:
    largest = largest_ranks(before.graph.get_submodule(name))
    assert largest is not None
    return largest[1]


def output_error(before: Trainable, after: Trainable, x: torch.Tensor) -> float:
    with torch.no_grad():
        return float((before.graph(x) - after.graph(x)).square().mean())


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize(("build", "name", "method"), LAYERS)
def test_full_rank_is_exact(
    build: type[nn.Module], name: str, method: str, calibrated: bool
) -> None:
    before, x = seeded(build), correlated_inputs()
    choice = LowRank(method=method, ranks=full_rank(before, name))
    after = factorize(before, {name: choice}, x if calibrated else None)
    torch.testing.assert_close(after.graph(x), before.graph(x), rtol=1e-4, atol=1e-5)


class OneLayer(nn.Module):
    """Only the layer under test, so that its own output error is what is measured."""

    def __init__(self, layer: nn.Module, flat: bool) -> None:
        super().__init__()
        self.widen = nn.Conv2d(1, 8, 3, padding=1)
        self.flatten = nn.Flatten() if flat else nn.Identity()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.flatten(self.widen(x)))


def one_layer(kind: str) -> Trainable:
    torch.manual_seed(3)
    layer = {
        "conv": lambda: nn.Conv2d(8, 12, 3, stride=2, padding=1),
        "pointwise": lambda: nn.Conv2d(8, 12, 1),
        "dense": lambda: nn.Linear(8 * 16 * 16, 10),
    }[kind]()
    graph = torch.fx.symbolic_trace(OneLayer(layer, kind == "dense")).eval()
    return Trainable(graph, torch.zeros(1, 1, 16, 16), "image", "logits")


RANKS = {"conv": [(1, 1), (2, 3), (4, 6), (6, 9), (8, 12)], "pointwise": [(1,), (3,), (5,), (8,)]}
RANKS["dense"] = [(1,), (3,), (6,), (10,)]


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("kind", RANKS)
def test_error_falls_as_the_rank_grows(kind: str, calibrated: bool) -> None:
    before, x = one_layer(kind), correlated_inputs()
    method = "tucker2" if kind == "conv" else "svd"
    errors = [
        output_error(
            before,
            factorize(
                before,
                {"layer": LowRank(method=method, ranks=ranks)},
                x if calibrated else None,
            ),
            x,
        )
        for ranks in RANKS[kind]
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-9 < errors[0]


@pytest.mark.parametrize("kind", RANKS)
def test_calibration_is_better_than_plain_svd_on_the_outputs(kind: str) -> None:
    before, x = one_layer(kind), correlated_inputs()
    method = "tucker2" if kind == "conv" else "svd"
    for ranks in RANKS[kind][:-1]:
        choice = {"layer": LowRank(method=method, ranks=ranks)}
        plain = output_error(before, factorize(before, choice, None), x)
        aware = output_error(before, factorize(before, choice, x), x)
        assert aware <= plain * 1.0001


def test_names_shapes_and_bias_of_the_factors() -> None:
    before = seeded(Residual)
    choice = {"conv3": LowRank(method="tucker2", ranks=(3, 5))}
    graph = factorize(before, choice, correlated_inputs()).graph
    shapes = {
        name: tuple(graph.get_submodule(f"conv3_{name}").weight.shape)
        for name in ("first", "core", "last")
    }
    assert shapes == {"first": (3, 8, 1, 1), "core": (5, 3, 3, 3), "last": (16, 5, 1, 1)}
    assert graph.get_submodule("conv3_core").stride == (2, 2)
    assert torch.equal(
        graph.get_submodule("conv3_last").bias, before.graph.get_submodule("conv3").bias
    )
    assert "conv3" not in dict(graph.named_modules())


def test_runs_are_equal() -> None:
    choice = {"conv3": LowRank(method="tucker2", ranks=(3, 5))}
    first, second = (factorize(seeded(Residual), choice, correlated_inputs()) for _ in range(2))
    for one, other in zip(first.graph.parameters(), second.graph.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("name", "choice", "words"),
    [
        ("nothing", LowRank(method="svd", ranks=(1,)), "no layer 'nothing'"),
        ("conv3", LowRank(method="svd", ranks=(1,)), "cannot take svd"),
        ("conv3", LowRank(method="tucker2", ranks=(9, 2)), r"rank 9 is not in 1\.\.8"),
        ("head", LowRank(method="svd", ranks=(0,)), r"rank 0 is not in 1\.\.4"),
        ("relu", LowRank(method="svd", ranks=(1,)), "takes no factorization"),
    ],
)
def test_impossible_choices_are_refused(name: str, choice: LowRank, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        factorize(seeded(Residual), {name: choice}, None)
