"""What the planner may choose from, and what each choice is expected to cost in damage."""

from __future__ import annotations

from pydantic import Field

from edgecompress.records import LowRank, Record, Sensitivity, WeightStorage


class LayerOption(Record):
    """One way of keeping a layer. The plain one (None, None, 0) is dense int8 as it is."""

    low_rank: LowRank | None = None
    weights: WeightStorage | None = None
    damage: float = 0.0

    def words(self) -> str:
        """For people: "svd rank 16, int4"."""
        words = []
        if self.low_rank is not None:
            ranks = " x ".join(map(str, self.low_rank.ranks))
            words.append(f"{self.low_rank.method} rank {ranks}")
        if self.weights is not None:
            zeros = f" {self.weights.sparsity:.0%}" if self.weights.sparsity else ""
            words.append(f"{self.weights.format}{zeros}")
        return ", ".join(words) or "as it is"


PLAIN = LayerOption()


class Choices(Record):
    """What may be chosen and what each choice costs in damage (0 for the original).

    `widths` maps a group to its channel counts, `ranks` a layer to factorizations, `formats` a
    layer to storages; the damages run parallel to them. Keeping a layer as it is costs 0 and is
    always allowed; the damages of a rank and a storage add up. `storages` are all those the image
    can hold, measured or not.
    """

    widths: dict[str, tuple[int, ...]]
    width_damage: dict[str, tuple[float, ...]]
    ranks: dict[str, tuple[LowRank, ...]] = Field(default_factory=dict)
    rank_damage: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    formats: dict[str, tuple[WeightStorage, ...]] = Field(default_factory=dict)
    format_damage: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    storages: tuple[WeightStorage, ...] = ()

    def without_formats(self) -> Choices:
        return self.model_copy(update={"formats": {}, "format_damage": {}, "storages": ()})

    def without_ranks(self) -> Choices:
        return self.model_copy(update={"ranks": {}, "rank_damage": {}})

    def layers(self) -> dict[str, tuple[LayerOption, ...]]:
        """Layer -> every way of keeping it, the plain one first."""
        names = [*self.ranks, *(layer for layer in self.formats if layer not in self.ranks)]
        found: dict[str, tuple[LayerOption, ...]] = {}
        for layer in names:
            ranks = zip(self.ranks.get(layer, ()), self.rank_damage.get(layer, ()), strict=True)
            stored = zip(
                self.formats.get(layer, ()), self.format_damage.get(layer, ()), strict=True
            )
            storages = [(None, 0.0), *stored]
            found[layer] = tuple(
                LayerOption(low_rank=rank, weights=storage, damage=rank_damage + storage_damage)
                for rank, rank_damage in [(None, 0.0), *ranks]
                for storage, storage_damage in storages
            )
        return found

    def most_sensitive(self, count: int) -> tuple[Sensitivity, ...]:
        """Single changes by what they cost, dearest first: half the width, the lowest rank, the
        smallest storage of each."""
        found = []
        for group, widths in self.widths.items():
            half = min(range(len(widths)), key=lambda at: abs(widths[at] - widths[-1] / 2))
            change = f"{widths[half]} of {widths[-1]} channels"
            found.append((self.width_damage[group][half], group, change))
        for layer, options in self.layers().items():
            dearest = max(options, key=lambda option: option.damage)
            found.append((dearest.damage, layer, dearest.words()))
        found.sort(key=lambda item: (-item[0], item[1]))
        return tuple(
            Sensitivity(layer=layer, change=change, damage=damage)
            for damage, layer, change in found[:count]
        )
