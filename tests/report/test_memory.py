from __future__ import annotations

from report_samples import KIB, make_result
from test_arena_picture import small_map

from edgecompress.records import FlashUse, OptimizeTrade, PatchReport, RamUse, RegionUse
from edgecompress.report.text import report_text


def too_large(**changes: object):
    fields: dict[str, object] = {
        "command": "compile",
        "fits": False,
        "ram": RamUse(
            used_bytes=97 * KIB, budget_bytes=64 * KIB, predicted_bytes=97 * KIB, parts={}
        ),
        "memory": small_map(),
    }
    return make_result(**{**fields, **changes})


def unwrapped(result) -> str:
    return " ".join(report_text(result).split())


def test_an_image_over_its_ram_names_step_tensors_bytes_and_the_way_out():
    said = unwrapped(too_large())
    assert "Too little RAM 97.0 KiB needed, 64.0 KiB allowed." in said
    assert (
        "At step 'add' 64.0 KiB are live: add 32.0 KiB + conv_2 32.0 KiB + stem 32.0 KiB." in said
    )
    assert "Cheapest way out --ram 97K holds this model as it is;" in said
    assert "`edgecompress fit`" in said


def test_what_would_shrink_the_arena_is_offered():
    patch = PatchReport(
        first_layer="stem", last_layer="conv_2", layers=2, stripes=4,
        arena_before_bytes=96 * KIB, arena_after_bytes=70 * KIB, extra_macs_percent=5.0,
    )  # fmt: skip
    trades = tuple(
        OptimizeTrade(optimize=goal, instructions=1, code_bytes=1, arena_bytes=size)
        for goal, size in (("balanced", 96 * KIB), ("size", 90 * KIB))
    )
    said = unwrapped(too_large(nearest_patch=patch, trades=trades))
    assert "--optimize size takes 6.0 KiB less of the arena" in said
    assert "in 4 stripes would bring the arena to 70.0 KiB (+5 % MACs), still too much" in said


def test_too_much_flash_has_its_own_way_out():
    flash = FlashUse(
        used_bytes=2000 * KIB, budget_bytes=1024 * KIB, predicted_bytes=None, sections={}
    )
    said = unwrapped(make_result(fits=False, flash=flash))
    assert "--flash 2000K holds this model as it is." in said
    assert "Too little RAM" not in said


def test_several_memories_are_listed_and_one_is_not():
    regions = (
        RegionUse(name="FLASH", kind="flash", used_bytes=KIB, size_bytes=2 * KIB),
        RegionUse(name="DTCM", kind="ram", used_bytes=3 * KIB, size_bytes=4 * KIB),
        RegionUse(name="AXI", kind="ram", used_bytes=KIB, size_bytes=8 * KIB),
    )
    said = unwrapped(make_result(regions=regions))
    assert "DTCM 3.0 KiB of 4.0 KiB, AXI 1.0 KiB of 8.0 KiB" in said
    assert "FLASH 1.0" not in said
    assert "Memories" not in unwrapped(make_result(regions=regions[:2]))


def test_what_fits_needs_no_way_out():
    said = unwrapped(make_result(memory=small_map()))
    assert "Too little RAM" not in said
    assert "Cheapest way out" not in said
