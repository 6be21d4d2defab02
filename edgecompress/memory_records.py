"""What an image occupies: the arena over time, sizes by part and by memory region."""

from __future__ import annotations

from typing import Literal

from edgecompress.record_base import Record
from edgecompress.units import format_bytes

_TENSORS_NAMED = 6


class TensorPlacement(Record):
    """One activation in the arena; live from first_step to last_step, both included."""

    name: str
    offset_bytes: int
    size_bytes: int
    first_step: int
    last_step: int


class ArenaPlacement(Record):
    """The part of the arena that lies in one memory region, from `offset_bytes` on."""

    region: str
    offset_bytes: int
    size_bytes: int


class MemoryMap(Record):
    """The arena over time. `occupied_bytes` holds, for each step, the bytes in use while it runs:
    with `tensors` what a picture of the arena needs.

    `peak_index` is the step's number (-1: before the first). `arenas` names the memories the arena
    is divided between, in the order of offsets; empty where the device has one.
    """

    arena_bytes: int
    tensors: tuple[TensorPlacement, ...]
    peak_step: str
    peak_live_bytes: int
    occupied_bytes: tuple[int, ...] = ()
    peak_index: int = 0
    arenas: tuple[ArenaPlacement, ...] = ()

    def live_at_peak(self) -> list[TensorPlacement]:
        """What is live at the fullest step, largest first."""
        live = [t for t in self.tensors if t.first_step <= self.peak_index <= t.last_step]
        return sorted(live, key=lambda tensor: (-tensor.size_bytes, tensor.name))


class RegionUse(Record):
    """What the linked image takes of one memory region, the stack's reserve included."""

    name: str
    kind: Literal["flash", "ram"]
    used_bytes: int
    size_bytes: int


class SizeReport(Record):
    """Sizes read from the linked image.

    `flash_sections`: weights, kernels, model (generated C and its tables), runtime, vectors, data.
    `ram_parts`: arena, scratch, static, io, and stack: the measured high-water once the image ran
    (`stack_reserve` where nothing could measure it). `regions`: the same by memory region, as
    linked; empty for a host.
    """

    flash_sections: dict[str, int]
    ram_parts: dict[str, int]
    regions: tuple[RegionUse, ...] = ()

    @property
    def flash_bytes(self) -> int:
        return sum(self.flash_sections.values())

    @property
    def ram_bytes(self) -> int:
        return sum(self.ram_parts.values())


def describe_peak(memory: MemoryMap) -> str:
    """ "At step 'conv_3' 48.0 KiB are live: conv_2 32.0 KiB + conv_3 16.0 KiB."

    Bytes that tensors share count once in the sum.
    """
    live = memory.live_at_peak()
    named = [f"{item.name} {format_bytes(item.size_bytes)}" for item in live[:_TENSORS_NAMED]]
    more = len(live) - len(named)
    listed = " + ".join(named) + (f" and {more} smaller" if more else "")
    return (
        f"At step '{memory.peak_step}' {format_bytes(memory.peak_live_bytes)} are live: {listed}."
    )
