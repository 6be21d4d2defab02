"""A generated TOML is a target at once, claims nothing its source does not say, and says so."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("pyocd")
pytest.importorskip("defusedxml")

from pack_samples import make_pack

from edgecompress.errors import BadInput
from edgecompress.target import DeviceProfile, load_target
from edgecompress.target.agreement import agreement, board_faults, unknown_unconfirmed
from edgecompress.target.generate import Draft, draft
from edgecompress.target.pyocd_chips import Chip, Memory, builtin_chip, builtin_names, pack_chip
from edgecompress.target.registry import with_family_facts


def loaded(made: Draft, folder: Path) -> DeviceProfile:
    path = folder / f"{made.name}.toml"
    path.write_text(made.text, encoding="utf-8")
    return load_target(str(path))


def chip(**changes: object) -> Chip:
    base = Chip(
        part="hs100", vendor="Test", pyocd_target="hs100", pack="", source="a test, page 1",
        memories=(
            Memory("flash", "IROM1", 0, 256 << 10, boot=True),
            Memory("ram", "IRAM1", 0x20000000, 64 << 10),
        ),
        core="cortex-m4", fpu="single", clock_hz=96_000_000,
    )  # fmt: skip
    return replace(base, **changes)  # type: ignore[arg-type]


def test_a_chip_of_pyocd_becomes_a_target_that_agrees_with_it(tmp_path: Path) -> None:
    made = draft(with_family_facts(builtin_chip("stm32h743zi")))
    profile = loaded(made, tmp_path)
    assert (profile.name, profile.core.name, profile.core.fpu) == (
        "stm32h743zi", "cortex-m7", "double",
    )  # fmt: skip
    assert profile.region("flash").size == 2 << 20
    assert profile.region("flash").banks == (1 << 20, 1 << 20)
    assert profile.fastest_ram.origin == 0x20000000
    assert profile.unconfirmed == ("core.clock_hz",)
    assert "family stm32h7" in profile.source
    assert not profile.has_firmware
    assert agreement(profile).state == "agrees"
    assert not board_faults(profile)
    assert not unknown_unconfirmed(profile)


def test_every_builtin_chip_with_a_known_core_makes_a_valid_target(tmp_path: Path) -> None:
    made = 0
    for name in builtin_names():
        try:
            written = draft(builtin_chip(name))
        except BadInput:
            continue  # no core, no generic core for it, or no memory an image could use
        profile = loaded(written, tmp_path)
        assert profile.regions
        assert not board_faults(profile)
        assert agreement(profile).state in ("agrees", "differs")
        made += 1
    assert made >= 60


def test_a_pack_that_says_all_leaves_no_value_to_look_up(tmp_path: Path) -> None:
    made = draft(pack_chip(make_pack(tmp_path), "HS100"))
    profile = loaded(made, tmp_path)
    assert (profile.core.clock_hz, profile.core.fpu) == (96_000_000, "single")
    assert profile.unconfirmed == ()
    assert [(region.name, region.size >> 10) for region in profile.regions] == [
        ("IROM1", 240), ("IRAM1", 48),
    ]  # fmt: skip
    assert any("1024 bytes at 0x10000000" in note for note in made.notes)
    assert profile.flashing is not None
    assert profile.flashing.pack == "Test.House_DFP.1.0.0.pack"
    assert agreement(profile).state == "not compared"


@pytest.mark.parametrize(
    ("core", "fpu", "claimed"),
    [
        ("cortex-m4", True, "single"),
        ("cortex-m4", False, "none"),
        ("cortex-m4", None, "none"),
        ("cortex-m7", True, "single"),
        ("cortex-m7", "double", "double"),
        ("cortex-m7", "none", "none"),
        ("cortex-m33", "none", "none"),
        ("cortex-m0", None, "none"),
        ("cortex-m3", None, "none"),
        ("cortex-m55", "double", "double"),
    ],
)
def test_no_more_fpu_is_claimed_than_is_known(
    tmp_path: Path, core: str, fpu: str | bool | None, claimed: str
) -> None:
    made = draft(chip(core=core, fpu=fpu))
    profile = loaded(made, tmp_path)
    assert (profile.core.name, profile.core.fpu) == (core, claimed)
    hard = profile.toolchain.llvm["mfloat-abi"] == "hard"
    assert hard == (claimed != "none")
    assert ("core.fpu" in profile.unconfirmed) == (
        (fpu is None and core not in ("cortex-m0", "cortex-m3"))
        or (core, fpu) == ("cortex-m7", True)
    )


def test_the_file_says_what_a_person_must_look_up(tmp_path: Path) -> None:
    made = draft(chip(clock_hz=None))
    assert loaded(made, tmp_path).unconfirmed == ("core.clock_hz",)
    head = made.text[: made.text.index("inherits")]
    assert head.startswith("#:schema ./target.schema.json\n")
    assert "# - core.clock_hz is the generic core's" in head
    assert "# - There is no console" in head
    assert all(line.startswith("#") for line in head.strip().splitlines())


def test_memory_that_is_not_whole_pages_is_rounded_down_and_said(tmp_path: Path) -> None:
    odd = Memory("ram", "IRAM1", 0x20000400, (64 << 10) + 512)
    made = draft(chip(memories=(Memory("flash", "f", 0, 1 << 20, boot=True), odd)))
    region = loaded(made, tmp_path).regions[1]
    assert (region.origin, region.size) == (0x20001000, 60 << 10)
    assert any("whole pages" in note for note in made.notes)


def test_external_and_option_memory_is_left_out_and_listed(tmp_path: Path) -> None:
    memories = (
        *chip().memories,
        Memory("ram", "SDRAM", 0x80000000, 64 << 20),
        Memory("flash", "UICR", 0x10001000, 1024),
        Memory("ram", "iram1", 0x30000000, 8 << 10),
    )
    made = draft(chip(memories=memories))
    names = [region.name for region in loaded(made, tmp_path).regions]
    assert names == ["IROM1", "IRAM1", "IRAM1_2"]
    assert {"SDRAM", "UICR"} <= {word.strip(",") for note in made.notes for word in note.split()}


def test_a_strangers_names_cannot_write_toml_of_their_own(tmp_path: Path) -> None:
    evil = 'x"\nclock_hz = 1\n[core]\nisa = "rv32imc" # \\'
    made = draft(
        chip(part=evil, vendor=evil, source=evil, pyocd_target=evil, pack=evil,
             memories=(Memory("flash", evil, 0, 1 << 20, boot=True),
                       Memory("ram", evil, 0x20000000, 1 << 16)))
    )  # fmt: skip
    assert set(tomllib.loads(made.text)) <= {
        "inherits", "name", "description", "source", "date", "core", "regions", "flashing", "qemu",
    }  # fmt: skip
    assert loaded(made, tmp_path).core.isa == "armv7e-m"
    assert "/" not in made.name


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"core": None}, "does not say which core"),
        ({"core": "cortex-m23"}, "no generic target"),
        ({"memories": (Memory("ram", "r", 0, 1 << 16),)}, "names no flash"),
        ({"memories": (Memory("flash", "f", 0, 1 << 16, boot=True),)}, "names no ram"),
    ],
)
def test_what_cannot_become_a_target_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        draft(chip(**changes))


def test_the_user_may_name_core_and_target(tmp_path: Path) -> None:
    made = draft(chip(core=None, fpu=None), core="cortex-m3", name="my-board")
    assert (loaded(made, tmp_path).name, made.name) == ("my-board", "my-board")
