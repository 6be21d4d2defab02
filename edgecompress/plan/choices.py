"""What the planner may choose from, and what each choice is expected to cost in damage."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgecompress.records import LowRank, WeightStorage


@dataclass(frozen=True)
class LayerOption:
    """One way of keeping a layer. The plain one (None, None, 0) is dense int8 as it is."""

    low_rank: LowRank | None = None
    weights: WeightStorage | None = None
    damage: float = 0.0


PLAIN = LayerOption()


@dataclass(frozen=True)
class Choices:
    """What may be chosen and what each choice costs in damage (0 for the original).

    `widths` maps a group to its channel counts, `ranks` a layer to factorizations, `formats` a
    layer to storages; the damages run parallel to them. Keeping a layer as it is costs 0 and is
    always allowed; the damages of a rank and a storage add up. `storages` are all those the image
    can hold, measured or not.
    """

    widths: dict[str, tuple[int, ...]]
    width_damage: dict[str, tuple[float, ...]]
    ranks: dict[str, tuple[LowRank, ...]] = field(default_factory=dict)
    rank_damage: dict[str, tuple[float, ...]] = field(default_factory=dict)
    formats: dict[str, tuple[WeightStorage, ...]] = field(default_factory=dict)
    format_damage: dict[str, tuple[float, ...]] = field(default_factory=dict)
    storages: tuple[WeightStorage, ...] = ()

    def without_ranks(self) -> Choices:
        return Choices(
            self.widths,
            self.width_damage,
            formats=self.formats,
            format_damage=self.format_damage,
            storages=self.storages,
        )

    def without_formats(self) -> Choices:
        return Choices(self.widths, self.width_damage, self.ranks, self.rank_damage)

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
                LayerOption(rank, storage, rank_damage + storage_damage)
                for rank, rank_damage in [(None, 0.0), *ranks]
                for storage, storage_damage in storages
            )
        return found
