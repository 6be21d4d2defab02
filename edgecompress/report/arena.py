"""The arena over time as one SVG: which tensor holds which bytes while which step runs.

One panel a memory region, offsets upward, steps to the right, one rectangle a tensor; rectangles
that overlap share bytes (in place, or an output over its dying input). Below them the bytes in use
at each step. The same memory map gives the same file, byte for byte.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgecompress.records import ArenaPlacement, MemoryMap, TensorPlacement
from edgecompress.units import format_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURE = "arena.svg"
"""Its name in a result's folder."""

_INCHES_WIDE = (8.0, 24.0)
_INCHES_A_STEP = 0.35
_PANEL_INCHES = (1.2, 5.0)
_LABELLED_STEPS = 60
_POINTS_A_LETTER = 4.2
_FONT_POINTS = 7
_PEAK_COLOUR = "#c0392b"
_RC: dict[Any, Any] = {
    "svg.hashsalt": "edgecompress",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": _FONT_POINTS,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def arena_svg(memory: MemoryMap, steps: Sequence[str], *, title: str) -> str:
    """The picture as SVG text.

    Args:
        memory: of a placed program.
        steps: the names of its steps, in order.
        title: one line above everything.
    """
    # no word on stderr about where its font cache could not be kept
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    arenas = memory.arenas or (
        ArenaPlacement(region="Arena", offset_bytes=0, size_bytes=memory.arena_bytes),
    )
    heights = _panel_heights(arenas)
    width = min(max(_INCHES_A_STEP * len(steps), _INCHES_WIDE[0]), _INCHES_WIDE[1])
    with mpl.rc_context(_defaults() | _RC):
        figure = Figure(figsize=(width, sum(heights) + 1.6), layout="constrained")
        FigureCanvasSVG(figure)
        panels = figure.subplots(
            len(heights), 1, sharex=True, squeeze=False, height_ratios=heights
        )[:, 0]
        figure.suptitle(_xml_text(title))
        # the last arena on top, as its offsets are the highest
        for panel, arena in zip(panels, reversed(arenas), strict=False):
            _draw_arena(panel, arena, memory, width / (len(steps) + 2))
        _draw_occupied(panels[-1], memory, steps)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": "edgecompress"})
    return buffer.getvalue()


def _defaults() -> dict[Any, Any]:
    """matplotlib's own settings, whatever the user's matplotlibrc says."""
    import matplotlib as mpl

    return {key: value for key, value in mpl.rcParamsDefault.items() if key != "backend"}


def _panel_heights(arenas: Sequence[ArenaPlacement]) -> list[float]:
    """Inches of each panel from the top: arenas by their size, then the bytes in use."""
    least, most = _PANEL_INCHES
    largest = max(arena.size_bytes for arena in arenas) or 1
    shown = [max(least, most * arena.size_bytes / largest) for arena in reversed(arenas)]
    return [*shown, least]


def _draw_arena(
    panel: Axes, arena: ArenaPlacement, memory: MemoryMap, inches_a_step: float
) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    colours = colormaps["tab20"].colors  # type: ignore[attr-defined]
    end = arena.offset_bytes + arena.size_bytes
    for index, tensor in enumerate(memory.tensors):
        if not arena.offset_bytes <= tensor.offset_bytes < max(end, arena.offset_bytes + 1):
            continue
        bottom = (tensor.offset_bytes - arena.offset_bytes) / 1024
        steps = tensor.last_step - tensor.first_step + 1
        panel.add_patch(
            Rectangle(
                (tensor.first_step - 0.5, bottom), steps, tensor.size_bytes / 1024,
                facecolor=(*colours[index % len(colours)], 0.6), edgecolor="black", linewidth=0.4,
            )
        )  # fmt: skip
        tall = tensor.size_bytes > arena.size_bytes / 40
        label = _label(tensor, steps * inches_a_step * 72)
        if tall and label:
            centre = ((tensor.first_step + tensor.last_step) / 2, bottom + tensor.size_bytes / 2048)
            panel.annotate(label, centre, ha="center", va="center", fontsize=_FONT_POINTS - 1)
    panel.set_ylim(0, max(arena.size_bytes, 1) / 1024)
    panel.set_ylabel(f"{arena.region} (KiB)")
    panel.axvline(memory.peak_index, color=_PEAK_COLOUR, linewidth=1, linestyle="--")


def _label(tensor: TensorPlacement, points: float) -> str:
    """The tensor's name and size, as much of it as the width takes; "" for less than a few."""
    letters = int(points / _POINTS_A_LETTER)
    name, size = _xml_text(tensor.name), format_bytes(tensor.size_bytes)
    if len(name) + len(size) + 1 <= letters:
        return f"{name} {size}"
    if len(name) <= letters:
        return name
    return f"{name[: letters - 1]}…" if letters > 3 else ""


def _draw_occupied(panel: Axes, memory: MemoryMap, steps: Sequence[str]) -> None:
    """Bytes in use at each step, the arena's size as a line, the fullest step marked."""
    numbers = range(len(memory.occupied_bytes))
    used = [count / 1024 for count in memory.occupied_bytes]
    panel.step(numbers, used, where="mid", color="black", linewidth=1)
    panel.fill_between(numbers, used, step="mid", color="#bbbbbb")
    panel.axhline(memory.arena_bytes / 1024, color="black", linewidth=0.6, linestyle=":")
    panel.axvline(memory.peak_index, color=_PEAK_COLOUR, linewidth=1, linestyle="--")
    panel.set_ylim(0, 1.15 * max(memory.arena_bytes, 1) / 1024)
    panel.set_xlim(-1.5, len(steps) + 0.5)
    panel.set_ylabel("In use (KiB)")
    panel.set_title(
        f"fullest: {_xml_text(memory.peak_step)}, {format_bytes(memory.peak_live_bytes)} live; "
        f"dotted: the arena, {format_bytes(memory.arena_bytes)}",
        fontsize=_FONT_POINTS, color=_PEAK_COLOUR, loc="left",
    )  # fmt: skip
    every = max(1, -(-len(steps) // _LABELLED_STEPS))
    ticks = list(range(0, len(steps), every))
    panel.set_xticks(ticks, [_xml_text(steps[index]) for index in ticks], rotation=90)


def _xml_text(text: str) -> str:
    """Printable, no markup of matplotlib's own ($...$)."""
    return "".join(char if char.isprintable() else "?" for char in text).replace("$", "\\$")
