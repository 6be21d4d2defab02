"""Where pyOCD and a profile see different memories."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("pyocd")

from edgecompress.target import DeviceProfile, load_target
from edgecompress.target.agreement import agreement, board_faults, unknown_unconfirmed

Changes = dict[str, object]


def changed(
    name: str, *, regions: dict[str, Changes] | None = None, **keys: object
) -> DeviceProfile:
    document = load_target(name).model_dump()
    for region in document["regions"]:
        region.update((regions or {}).get(region["name"], {}))
        region["banks"] = ()
    for key, value in keys.items():
        document[key].update(value) if isinstance(value, dict) else document.update({key: value})
    return DeviceProfile.model_validate(document)


def test_the_same_memories_agree() -> None:
    assert agreement(load_target("nrf52840")).state == "agrees"


@pytest.mark.parametrize(
    ("regions", "said"),
    [
        ({"FLASH": {"size": 2 << 20}}, "FLASH is 2.00 MiB at 0x00000000, pyOCD's flash 1.00 MiB"),
        ({"FLASH": {"size": 512 << 10}}, "FLASH is 512.0 KiB"),
        ({"RAM": {"size": 512 << 10}}, "RAM is 512.0 KiB"),
        ({"RAM": {"origin": 0x30000000}}, "at 0x30000000, where pyOCD has nothing"),
        ({"RAM": {"origin": 0x80000, "size": 4096}, "FLASH": {"size": 4096}}, "has flash"),
    ],
)
def test_other_memories_differ_naming_both_sides(regions: dict[str, Changes], said: str) -> None:
    seen = agreement(changed("nrf52840", regions=regions, stack_reserve=1024))
    assert seen.state == "differs"
    assert said in seen.detail
    assert "flashing.map_differs" in seen.detail


def test_a_difference_the_profile_explains_is_explained() -> None:
    profile = changed(
        "nrf52840", regions={"RAM": {"size": 64 << 10}}, flashing={"map_differs": "Radio's own."}
    )
    seen = agreement(profile)
    assert seen.state == "explained"
    assert seen.detail.endswith("Radio's own.")


def test_what_cannot_be_compared_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    assert agreement(load_target("cortex-m4")).detail == "no flashing.pyocd_target"
    assert "needs the CMSIS-Pack" in agreement(load_target("nrf5340")).detail
    missing = changed("nrf52840", flashing={"pyocd_target": "nrf99"})
    assert agreement(missing).state == "differs"
    assert "does not have built in" in agreement(missing).detail
    monkeypatch.setitem(sys.modules, "pyocd", None)
    seen = agreement(load_target("nrf52840"))
    assert (seen.state, "not installed" in seen.detail) == ("not compared", True)


def test_the_virtual_board_maps_whole_pages() -> None:
    profile = changed("nrf52840", regions={"RAM": {"size": (64 << 10) + 100}})
    (fault,) = board_faults(profile)
    assert "65636 bytes at 0x20000000" in fault
    assert not board_faults(changed("nrf52840", virtual=None))


def test_unconfirmed_names_keys_there_are() -> None:
    profile = changed(
        "nrf52840", unconfirmed=("core.clock_hz", "core.clok", "regions", "core.isa.x")
    )
    assert unknown_unconfirmed(profile) == ["core.clok", "core.isa.x"]
