from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import matplotlib as mpl

from edgecompress.records import ArenaPlacement, MemoryMap, TensorPlacement
from edgecompress.report.arena import arena_svg

STEPS = ["stem", "conv_2", "add", "head"]


def tensor(name: str, offset: int, size: int, first: int, last: int) -> TensorPlacement:
    return TensorPlacement(
        name=name, offset_bytes=offset, size_bytes=size, first_step=first, last_step=last
    )


def small_map(**changes: object) -> MemoryMap:
    fields: dict[str, object] = {
        "arena_bytes": 96 * 1024,
        "tensors": (
            tensor("image", 0, 32768, -1, 0),
            tensor("stem", 32768, 32768, 0, 2),
            tensor("conv_2", 65536, 32768, 1, 2),
            tensor("add", 65536, 32768, 2, 3),
            tensor("head", 0, 16, 3, 4),
        ),
        "peak_step": "add",
        "peak_live_bytes": 65536,
        "occupied_bytes": (65536, 65536, 65536, 32784),
        "peak_index": 2,
    }
    return MemoryMap(**{**fields, **changes})  # type: ignore[arg-type]


def texts(svg: str) -> str:
    root = ElementTree.fromstring(svg)
    return "\n".join("".join(node.itertext()) for node in root.iter() if node.tag.endswith("text"))


def rectangles(svg: str) -> int:
    """Patches with an outline: the tensors; axes and background have other line widths."""
    return len(re.findall(r"stroke-width: 0\.4", svg))


def test_every_tensor_is_a_rectangle_and_the_fullest_step_is_named():
    svg = arena_svg(small_map(), STEPS, title="net on board")
    assert rectangles(svg) == 5
    seen = texts(svg)
    for word in ("net on board", "stem 32.0 KiB", "fullest: add, 64.0 KiB live", *STEPS):
        assert word in seen


def test_the_same_map_gives_the_same_bytes_whatever_the_users_settings():
    first = arena_svg(small_map(), STEPS, title="net")
    with mpl.rc_context({"axes.facecolor": "red", "font.size": 30}):
        assert arena_svg(small_map(), STEPS, title="net") == first
    assert "<dc:date>" not in first


def test_each_memory_has_its_own_panel():
    arenas = (
        ArenaPlacement(region="DTCM", offset_bytes=0, size_bytes=65536),
        ArenaPlacement(region="AXI", offset_bytes=65536, size_bytes=32768),
    )
    svg = arena_svg(small_map(arenas=arenas), STEPS, title="net")
    assert rectangles(svg) == 5
    assert "DTCM (KiB)" in texts(svg)
    assert "AXI (KiB)" in texts(svg)


def test_a_long_network_stays_readable():
    count = 300
    tensors = tuple(tensor(f"layer_{i}", 4096 * (i % 3), 4096, i, i + 1) for i in range(count))
    memory = small_map(
        tensors=tensors, arena_bytes=12288, occupied_bytes=(8192,) * count, peak_index=7
    )
    names = [f"layer_{i}" for i in range(count)]
    svg = arena_svg(memory, names, title="long")
    assert rectangles(svg) == count
    ticks = [word for word in texts(svg).splitlines() if re.fullmatch(r"layer_\d+", word)]
    assert 20 <= len(ticks) <= 120
    width = float(re.search(r'width="([\d.]+)pt"', svg)[1])
    assert width <= 24 * 72


def test_hostile_names_stay_text():
    memory = small_map(tensors=(tensor("$\\frac<&\x07", 0, 98304, 0, 3),))
    svg = arena_svg(memory, ["$a$", "<b>", "c\n", "d"], title="$x$ <script>")
    assert "<script>" not in svg
    assert "$x$ <script>" in texts(svg)


def test_an_empty_arena_draws():
    memory = MemoryMap(arena_bytes=0, tensors=(), peak_step="", peak_live_bytes=0)
    assert "Arena (KiB)" in texts(arena_svg(memory, [], title="nothing"))
