"""What each chip's [console.settings] ask of its port compiles.

The ports check clock limits, UARTs, pins and addresses with static assertions, so a target that
asks for what the chip cannot do does not. Chips of one port and core are compiled in one go, each
as a file that defines its settings and includes the port.
"""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest

from edgecompress.link.image import port_defines
from edgecompress.link.toolchain import ToolchainRefused, compile_c
from edgecompress.paths import shipped
from edgecompress.target import DeviceProfile, load_target, target_names


def group_of(profile: DeviceProfile) -> tuple[str, str, str]:
    return profile.console.port, profile.toolchain.zig_target, profile.toolchain.zig_cpu


def groups() -> dict[str, list[DeviceProfile]]:
    profiles = [load_target(name) for name in target_names()]
    chips = [one for one in profiles if one.kind == "mcu" and one.has_firmware]
    ordered = sorted(chips, key=group_of)
    return {" ".join(key): list(members) for key, members in itertools.groupby(ordered, group_of)}


GROUPS = groups()


def check(profiles: list[DeviceProfile], folder: Path) -> None:
    port = f"ports/{profiles[0].console.port}"
    for part in ("core", port, "startup"):
        shutil.copytree(shipped("runtimes") / part, folder / part)
    for profile in profiles:
        defines = (flag.removeprefix("-D").partition("=") for flag in port_defines(profile))
        lines = [f"#define {name} {value}" for name, _, value in defines]
        (folder / f"{profile.name}.c").write_text("\n".join([*lines, '#include "port.c"', ""]))
    sources = [f"{profile.name}.c" for profile in profiles]
    compile_c(sources, ["-Icore", "-Istartup", f"-I{port}"], profiles[0], folder=folder)


def test_most_chips_of_the_ports_families_have_firmware() -> None:
    assert sum(map(len, GROUPS.values())) >= 40
    assert {profile.console.port for members in GROUPS.values() for profile in members} == {
        "stm32", "nrf", "rp2", "esp32c3",
    }  # fmt: skip


@pytest.mark.parametrize("group", sorted(GROUPS))
def test_the_port_takes_each_chips_settings(group: str, tmp_path: Path) -> None:
    check(GROUPS[group], tmp_path)


def test_a_clock_above_the_lines_limit_does_not_compile(tmp_path: Path) -> None:
    document = load_target("stm32f411re").model_dump()
    document["core"]["clock_hz"] = 120_000_000
    with pytest.raises(ToolchainRefused, match="clock_hz is above what this line allows"):
        check([DeviceProfile.model_validate(document)], tmp_path)
