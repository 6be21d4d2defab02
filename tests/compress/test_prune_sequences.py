"""Recurrent units and attention heads are channels: coupled, ranked and cut like filters."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from edgecompress.compress.channels import filters_of
from edgecompress.compress.criteria import Criterion
from edgecompress.compress.groups import ChannelGroup, find_groups
from edgecompress.compress.lowrank import choose_ranks, factorize
from edgecompress.compress.prune import prune
from edgecompress.errors import BadInput
from edgecompress.model.export import export_module
from edgecompress.model.load import Source
from edgecompress.model.normalize import normalize
from edgecompress.model.trainable import Trainable, to_trainable


class Recurrent(nn.Module):
    """A bidirectional LSTM, a GRU on both directions' states, its last state classified."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.LSTM(6, 10, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(20, 8, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.gru(self.both(x)[0])
        return self.head(states[:, -1])


class Transformer(nn.Module):
    """One encoder layer of four heads with positions, on a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 16)
        self.position = nn.Parameter(torch.randn(1, 12, 16))
        self.layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, activation="gelu")
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.embed(x) + self.position).mean(1))


class Patches(nn.Module):
    """The same on the patches of an image: channels move from axis 1 to the last."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, 16, 4, 4)
        self.layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, norm_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.embed(x).flatten(2).transpose(1, 2)).mean(1))


SHAPES: dict[type[nn.Module], tuple[int, ...]] = {
    Recurrent: (1, 12, 6),
    Transformer: (1, 12, 6),
    Patches: (1, 1, 16, 16),
}
_BUILT: dict[type[nn.Module], Trainable] = {}


def built(kind: type[nn.Module]) -> Trainable:
    """The network as the importer makes it; a copy, so that tests may change it."""
    if kind not in _BUILT:
        torch.manual_seed(0)
        exported = normalize(export_module(kind(), SHAPES[kind], "net"), "net", None)
        _BUILT[kind] = to_trainable(Source("net", "float", exported, None, ""))
    made = _BUILT[kind]
    return replace(made, graph=copy.deepcopy(made.graph))


def inputs(kind: type[nn.Module], count: int = 8, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *SHAPES[kind][1:], generator=generator)


def groups(model: Trainable) -> dict[str, ChannelGroup]:
    return {group.name: group for group in find_groups(model)}


def heads_of(model: Trainable) -> ChannelGroup:
    return next(group for group in find_groups(model) if group.unit > 1)


def test_recurrent_units_of_each_direction_are_groups_of_their_own() -> None:
    found = groups(built(Recurrent))
    assert [group.channels for group in found.values()] == [10, 10, 8]
    forward, backward, gru = found.values()
    assert forward.consumers == backward.consumers == gru.producers
    assert gru.consumers == ("head",)


@pytest.mark.parametrize("kind", [Transformer, Patches])
def test_heads_couple_the_three_projections_and_the_stream_couples_the_rest(
    kind: type[nn.Module],
) -> None:
    model = built(kind)
    heads = heads_of(model)
    assert (heads.channels, heads.unit, len(heads.producers)) == (4, 4, 3)
    assert len(heads.consumers) == 1
    stream = groups(model)["embed"]
    assert stream.channels == 16
    assert len(stream.producers) == 3
    assert len([name for name in stream.followers if "norm" in name]) == 2
    assert next(iter(heads.consumers)) in stream.producers


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("criterion", ["l1", "l2", "taylor", "activation"])
def test_every_group_gets_exactly_its_width(kind: type[nn.Module], criterion: Criterion) -> None:
    before = built(kind)
    widths = {name: 1 + group.channels // 3 for name, group in groups(before).items()}
    x = inputs(kind)
    after = prune(before, widths, criterion=criterion, calibration=x)
    assert {name: group.channels for name, group in groups(after).items()} == widths
    assert after.graph(x).shape == (len(x), 4)
    assert torch.isfinite(after.graph(x)).all()
    full = {name: group.channels for name, group in groups(before).items()}
    assert torch.equal(prune(before, full).graph(x), before.graph(x))


def test_removing_a_silent_unit_is_exact() -> None:
    """A unit whose weights are all zero never leaves zero: tanh(0) is what it would add."""
    before = built(Recurrent)
    for name, group in groups(before).items():
        module = before.graph.get_submodule(name)
        rows = torch.arange(module.gates) * group.channels + 3
        with torch.no_grad():
            for value in module.layer.parameters():
                value[rows] = 0
    widths = {name: group.channels - 1 for name, group in groups(before).items()}
    after = prune(before, widths)
    x = inputs(Recurrent)
    torch.testing.assert_close(after.graph(x), before.graph(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [Transformer, Patches])
def test_removing_a_silent_head_is_exact(kind: type[nn.Module]) -> None:
    before = built(kind)
    heads = heads_of(before)
    query, key, value = (before.graph.get_submodule(name) for name in heads.producers)
    with torch.no_grad():
        for module in (query, key):
            module.weight[8:12] *= 1e-3
        value.weight[8:12] = 0
        value.bias[8:12] = 0
    after = prune(before, {heads.name: 3})
    x = inputs(kind)
    torch.testing.assert_close(after.graph(x), before.graph(x), rtol=1e-5, atol=1e-6)
    left = torch.cat([torch.arange(8), torch.arange(12, 16)])
    for name in heads.producers:
        expected = before.graph.get_submodule(name).weight[left]
        assert torch.equal(after.graph.get_submodule(name).weight, expected)


def test_the_unit_with_the_smallest_weights_goes() -> None:
    before = built(Recurrent)
    gru = [*groups(before)][2]
    module = before.graph.get_submodule(gru)
    norms = filters_of(module).square().sum(1)
    keep = norms.argsort(descending=True)[:5].sort().values
    after = prune(before, {gru: 5}).graph.get_submodule(gru)
    rows = torch.cat([gate * 8 + keep for gate in range(3)])
    assert torch.equal(after.layer.weight_ih_l0, module.layer.weight_ih_l0[rows])
    assert torch.equal(after.layer.weight_hh_l0, module.layer.weight_hh_l0[rows][:, keep])
    assert torch.equal(after.layer.bias_hh_l0, module.layer.bias_hh_l0[rows])


@pytest.mark.parametrize("kind", SHAPES)
def test_repair_brings_sequences_closer_on_inputs_not_seen(kind: type[nn.Module]) -> None:
    before, fresh = built(kind), inputs(kind, 64, 9)
    widths = {name: 3 * group.channels // 4 for name, group in groups(before).items()}
    bare = prune(before, widths)
    repaired = prune(before, widths, calibration=inputs(kind, 256), repaired=True)
    errors = [
        (model.graph(fresh) - before.graph(fresh)).square().mean().item()
        for model in (bare, repaired)
    ]
    assert errors[1] < 0.7 * errors[0]


def test_projections_can_be_factorized() -> None:
    before, x = built(Transformer), inputs(Transformer, 64)
    chosen = choose_ranks(before, 0.9, calibration=x)
    assert chosen
    after = factorize(before, chosen, x)
    fine = factorize(before, choose_ranks(before, 0.99, calibration=x), x)
    wanted = before.graph(x)
    errors = [(model.graph(x) - wanted).square().mean().item() for model in (after, fine)]
    assert errors[1] < errors[0] < wanted.var().item()


def test_more_heads_than_there_are_is_refused() -> None:
    before = built(Transformer)
    heads = heads_of(before)
    with pytest.raises(BadInput, match="has 4 channels, its width cannot become 5"):
        prune(before, {heads.name: 5})
