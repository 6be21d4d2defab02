from __future__ import annotations

from pathlib import Path

import pytest

from edgecompress.errors import InvalidTarget, UnknownTarget
from edgecompress.target import DeviceProfile, load_target, target_names

BOARD = """
name = "board"
description = "A test board"
kind = "mcu"
source = "this test"
date = "2026-11-21"

[core]
name = "cortex-m4"
isa = "armv7e-m"
clock_hz = 80_000_000

[toolchain]
llvm = { kind = "llvm", mtriple = "thumbv7em-none-eabi" }
zig_target = "thumb-freestanding-eabi"

[[regions]]
name = "FLASH"
kind = "flash"
origin = 0x08000000
size = "512K"

[[regions]]
name = "SRAM"
kind = "ram"
origin = 0x20000000
size = "128K"

[console]
port = "cmsdk"
"""


def board(folder: Path, *changes: tuple[str, str], name: str = "board") -> str:
    text = BOARD
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_shipped_targets_are_the_promised_ones() -> None:
    promised = {"cortex-m4", "cortex-m7", "cortex-m33", "cortex-m0plus", "cortex-m55"}
    promised |= {"x86-64", "aarch64", "cuda-sm_90", "cuda-sm_87"}
    assert promised <= set(target_names())


def test_generic_m7_has_the_memory_the_demo_is_made_for() -> None:
    profile = load_target("cortex-m7")
    assert (profile.ram_bytes, profile.flash_bytes) == (320 * 1024, 1024 * 1024)


def test_unknown_target_lists_the_nearest_names() -> None:
    with pytest.raises(UnknownTarget, match="no target 'cortx-m7'") as caught:
        load_target("cortx-m7")
    assert caught.value.next_step is not None
    assert caught.value.next_step.startswith("Nearest: cortex-m7")


def test_a_name_near_nothing_says_where_the_names_are() -> None:
    with pytest.raises(UnknownTarget, match="targets list` names all"):
        load_target("zzzz")


def test_missing_file_is_called_a_file(tmp_path: Path) -> None:
    with pytest.raises(UnknownTarget, match="no target file"):
        load_target(str(tmp_path / "absent.toml"))


def test_a_users_own_toml_loads_by_path(tmp_path: Path) -> None:
    profile = load_target(board(tmp_path))
    assert profile.region("ram").origin == 0x20000000
    budget = profile.budget("256K", 65536)
    assert (budget.flash_bytes, budget.ram_bytes) == (256 * 1024, 65536)
    assert profile.budget().flash_bytes == 512 * 1024


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("clock_hz", "clok_hz"), "'core.clok_hz' is not a key of the target schema"),
        (("clock_hz", "clok_hz"), "'core.clock_hz' is required by the target schema and missing"),
        (('name = "board"', 'name = "../board"'), "'name': a name begins with a letter"),
        (('name = "board"', 'name = "a\\"b"'), "'name': a name begins with a letter"),
        (('kind = "mcu"', 'kind = "toaster"'), "'kind': .*'mcu', 'host' or 'cuda'"),
        (('"512K"', '"much"'), "'regions.0.size': 'much' is not a size"),
        (('"512K"', "1.5"), "'regions.0.size': '1.5' is not a size"),
        (('"512K"', "0"), "'regions.0.size'"),
        (('"512K"', '"512K"\nwait_cycles = 4'), "wait_cycles is given but wait_source is empty"),
        (('"512K"', '"512K"\nwait_cycles = -1'), "'regions.0.wait_cycles'"),
        (('"SRAM"', '"FLASH"'), "two regions are named FLASH"),
        (('"SRAM"', '"AXI SRAM"'), "the linker takes letters, digits and _"),
        (('kind = "ram"', 'kind = "flash"'), "'mcu' but .*has no ram region"),
        (
            ("0x20000000", "0x08040000"),
            r"region FLASH \(512.0 KiB at 0x08000000\) overlaps region SRAM at 0x08040000",
        ),
        (
            ('name = "board"', 'name = "board"\nstack_reserve = "128K"'),
            "stack_reserve is 128.0 KiB but the ram regions hold 128.0 KiB",
        ),
        (
            ("clock_hz = 80_000_000", "clock_hz = 1\ncycles_per_instruction = [1.0, 2.0]"),
            "cycles_per_instruction is given but cycles_source is empty",
        ),
        (
            ("clock_hz = 80_000_000", "clock_hz = 1\ncycles_per_instruction = [2.0, 1.0]"),
            r"write \[low, high\]",
        ),
        (('kind = "mcu"', 'kind = "cuda"'), r"'cuda' but the \[cuda\] table is missing"),
    ],
)
def test_a_broken_target_names_file_key_and_rule(
    tmp_path: Path, change: tuple[str, str], fault: str
) -> None:
    with pytest.raises(InvalidTarget, match=f"board.toml: .*{fault}") as caught:
        load_target(board(tmp_path, change))
    assert "\n" not in caught.value.message


def test_bad_toml_and_binary_files_are_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    for content in (b"name = \n", b"\xff\xfe\x00\x01"):
        path.write_bytes(content)
        with pytest.raises(InvalidTarget, match=r"bad\.toml is not TOML"):
            load_target(str(path))


def test_a_variant_inherits_and_changes_single_keys(tmp_path: Path) -> None:
    board(tmp_path)
    variant = tmp_path / "variant.toml"
    variant.write_text('inherits = "board"\nname = "variant"\n[core]\nclock_hz = 48_000_000\n')
    profile = load_target(str(variant))
    assert (profile.name, profile.core.clock_hz, profile.core.isa) == (
        "variant", 48_000_000, "armv7e-m",
    )  # fmt: skip


def test_a_users_toml_may_inherit_a_shipped_target(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('inherits = "cortex-m7"\nname = "mine"\n')
    assert load_target(str(path)).core == load_target("cortex-m7").core


def test_unknown_parent_names_both_sides(tmp_path: Path) -> None:
    path = tmp_path / "child.toml"
    path.write_text('inherits = "ghost"\n')
    with pytest.raises(InvalidTarget, match=r"child\.toml inherits from 'ghost'"):
        load_target(str(path))


def test_circular_inheritance_draws_the_circle(tmp_path: Path) -> None:
    for child, parent in (("a", "b"), ("b", "c"), ("c", "a")):
        (tmp_path / f"{child}.toml").write_text(f'inherits = "{parent}"\n')
    with pytest.raises(InvalidTarget, match="in a circle: a -> b -> c -> a"):
        load_target(str(tmp_path / "a.toml"))
    (tmp_path / "self.toml").write_text('inherits = "self"\n')
    with pytest.raises(InvalidTarget, match="in a circle: self -> self"):
        load_target(str(tmp_path / "self.toml"))


def test_stack_and_variables_go_where_no_access_waits() -> None:
    profile = load_target("cortex-m7-tcm")
    assert profile.fastest_ram.name == "DTCM"
    assert [region.name for region in profile.regions] == ["FLASH", "DTCM", "AXI", "QSPI"]
    document = profile.model_dump()
    document["stack_reserve"] = 200 * 1024
    with pytest.raises(ValueError, match="but DTCM, the fastest ram region"):
        DeviceProfile.model_validate(document)


def test_equal_memories_keep_their_order(tmp_path: Path) -> None:
    assert load_target(board(tmp_path)).fastest_ram.name == "SRAM"
