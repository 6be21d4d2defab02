"""What a target may tell its port, and what is said when it tells something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecompress.errors import InvalidTarget
from edgecompress.link.image import port_defines
from edgecompress.paths import shipped
from edgecompress.target import load_target, port_settings
from edgecompress.target.schema import Console

_RULES = """
[crystal_hz]
type = "integer"
meaning = "Hz of the crystal"
default = 0
minimum = 0
maximum = 50_000_000

[family]
type = "string"
meaning = "which registers"
choices = ["f4", "h7"]

[tx]
type = "string"
meaning = "the pin"
pattern = 'P[A-I]\\d'

[line]
type = "string"
meaning = "which limits"
default = "h743"

[line.choices_by.family]
f4 = ["f401", "f446"]
h7 = ["h743"]
"""


@pytest.fixture
def ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtimes folder with one port, `made`."""
    folder = tmp_path / "ports" / "made"
    folder.mkdir(parents=True)
    (folder / "port.c").write_text("")
    (folder / "settings.toml").write_text(_RULES)
    monkeypatch.setattr(port_settings, "shipped", lambda _folder: tmp_path)
    caches = (port_settings.port_names, port_settings.setting_rules)
    for cache in caches:
        cache.cache_clear()
    yield
    monkeypatch.undo()
    for cache in caches:
        cache.cache_clear()


@pytest.mark.usefixtures("ports")
def test_a_new_port_is_one_folder_and_gets_its_defaults() -> None:
    console = Console(port="made", settings={"tx": "PD8", "family": "h7"})
    assert console.settings == {
        "crystal_hz": 0, "family": "h7", "tx": "PD8", "line": "h743",
    }  # fmt: skip
    assert port_settings.settings_defines(console.settings) == [
        "-DPORT_CRYSTAL_HZ=0", "-DPORT_FAMILY=h7", "-DPORT_TX=PD8", "-DPORT_LINE=h743",
    ]  # fmt: skip


@pytest.mark.usefixtures("ports")
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"family": "h7"}, "lacks tx, which runtimes/ports/made/settings.toml requires: the pin"),
        ({"family": "h7", "tx": "PD8", "speed": 1}, r"has speed, .* it lists crystal_hz, family"),
        ({"family": "h8", "tx": "PD8"}, r"settings.family is 'h8', .* wants one of f4, h7"),
        ({"family": "h7", "tx": "PD8 -Dx"}, "wants a word of letters, digits and _"),
        ({"family": "h7", "tx": 8}, "wants a word of letters"),
        (
            {"family": "h7", "tx": "PD88"},
            r"settings.tx is 'PD88', .* wants what P\[A-I\]\\d matches",
        ),
        ({"family": "f4", "tx": "PD8"}, r"line is 'h743', but with family 'f4' .* of f401, f446"),
        ({"family": "h7", "tx": "PD8", "crystal_hz": -1}, "a number from 0 to 50000000"),
        ({"family": "h7", "tx": "PD8", "crystal_hz": True}, "wants an integer"),
    ],
)
def test_a_wrong_setting_names_both_sides(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        port_settings.complete_settings("made", settings)


def test_the_target_file_is_named_as_well(tmp_path: Path) -> None:
    target = tmp_path / "mine.toml"
    target.write_text('inherits = "cortex-m4"\nname = "mine"\n[console.settings]\nspeed = 1\n')
    with pytest.raises(InvalidTarget, match=r"mine\.toml: 'console'.*speed.*lists none"):
        load_target(str(target))
    target.write_text('inherits = "cortex-m4"\nname = "mine"\n[console]\nport = "ttl"\n')
    with pytest.raises(InvalidTarget, match=r"'console\.port': runtimes/ports has cmsdk, .*'ttl'"):
        load_target(str(target))


def test_no_setting_takes_a_definition_all_ports_have() -> None:
    taken = {flag.split("=")[0] for flag in port_defines(load_target("cortex-m55"))}
    for port in port_settings.port_names():
        rules = port_settings.setting_rules(port)
        assert rules or not (shipped("runtimes") / "ports" / port / "settings.toml").exists()
        made = {
            flag.split("=")[0] for flag in port_settings.settings_defines(dict.fromkeys(rules, 0))
        }
        assert not made & taken
