"""Flash that is read elsewhere than it is fetched from."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from edgecompress.target import DeviceProfile, load_target


def _changed(target: str, region: int, **changes: Any) -> DeviceProfile:
    tables = load_target(target).model_dump()
    regions = list(tables["regions"])
    regions[region] |= changes
    tables["regions"] = regions
    return DeviceProfile.model_validate(tables)


def test_loads_find_the_data_window_and_else_the_region_itself() -> None:
    flash, ram = load_target("esp32c3").regions
    assert (flash.origin, flash.read_origin) == (0x42000000, 0x3C000000)
    assert ram.read_origin == ram.origin


@pytest.mark.parametrize(
    ("region", "changes", "said"),
    [
        (1, {"data_origin": 0x50000000}, "data_origin is given but kind is not 'flash'"),
        (0, {"data_origin": 0x3FC00000}, r"region FLASH \(4.00 MiB at 0x3fc00000\) overlaps"),
        (0, {"data_origin": 0x42300000}, "overlaps region FLASH at 0x42300000"),
    ],
)
def test_a_window_over_another_memory_is_refused(
    region: int, changes: dict[str, int], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        _changed("esp32c3", region, **changes)
