"""What a port of the firmware can be told: `settings.toml` in its folder of runtimes/ports.

Each table of that file is one key of a target's `[console.settings]`:

    [crystal_hz]
    type = "integer"        # or "string", which C gets as a bare word
    meaning = "Frequency of the crystal in Hz; 0 where there is none"
    default = 0             # without it the key is required
    minimum = 0             # integers only; so is maximum
    choices = [0, 8000000]  # when only these will do
    pattern = "P[A-I]\\d"    # strings only: a regular expression for the whole of it

    [line.choices_by.family]    # what `line` may be, by the value of the setting `family`
    f4 = ["f401", "f446"]
    h7 = ["h743"]

The firmware is compiled with -DPORT_CRYSTAL_HZ=0, defaults included. A port without settings has
no such file. A port is a folder: making one makes its name known here.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from edgecompress.paths import shipped
from edgecompress.records import Record

Setting = int | str

_SETTINGS_FILE = "settings.toml"


class SettingRule(Record):
    """One table of settings.toml."""

    type: Literal["integer", "string"]
    meaning: str
    default: Setting | None = None
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[Setting, ...] = ()
    pattern: str = ""
    choices_by: dict[str, dict[str, tuple[Setting, ...]]] = Field(default={})


@functools.cache
def port_names() -> tuple[str, ...]:
    """The folders of runtimes/ports, sorted."""
    folders = (path.parent.name for path in (shipped("runtimes") / "ports").glob("*/*.c"))
    return tuple(sorted(set(folders)))


@functools.cache
def setting_rules(port: str) -> dict[str, SettingRule]:
    """The keys `port` takes; empty where it has no settings.toml."""
    path = shipped("runtimes") / "ports" / port / _SETTINGS_FILE
    if not path.is_file():
        return {}
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    return {key: SettingRule.model_validate(table) for key, table in tables.items()}


def complete_settings(port: str, settings: Mapping[str, Any]) -> dict[str, Setting]:
    """`settings` checked against the port's rules, its defaults filled in, in the rules' order.

    Raises:
        ValueError: naming the key, and what the port's settings.toml wants there.
    """
    rules = setting_rules(port)
    where = f"runtimes/ports/{port}/{_SETTINGS_FILE}"
    known = ", ".join(rules) or "none"
    if unknown := sorted(set(settings) - set(rules)):
        raise ValueError(
            f"settings has {', '.join(unknown)}, which {where} does not list; it lists {known}"
        )
    complete: dict[str, Setting] = {}
    for key, rule in rules.items():
        value = settings.get(key, rule.default)
        if value is None:
            raise ValueError(f"settings lacks {key}, which {where} requires: {rule.meaning}")
        if fault := _fault(value, rule):
            raise ValueError(f"settings.{key} is {value!r}, but {where} wants {fault}")
        complete[key] = value
    for key, rule in rules.items():
        for other, choices in rule.choices_by.items():
            allowed = choices.get(str(complete[other]), ())
            if complete[key] not in allowed:
                raise ValueError(
                    f"settings.{key} is {complete[key]!r}, but with {other} {complete[other]!r} "
                    f"{where} wants one of {', '.join(map(str, allowed))}"
                )
    return complete


def _fault(value: Any, rule: SettingRule) -> str:
    """What a value should have been; empty when it will do."""
    if rule.type == "integer":
        if not isinstance(value, int) or isinstance(value, bool):
            return "an integer"
        low, high = rule.minimum, rule.maximum
        if (low is not None and value < low) or (high is not None and value > high):
            return f"a number from {'-' if low is None else low} to {'-' if high is None else high}"
    elif not isinstance(value, str) or re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value) is None:
        # It becomes a word of C.
        return "a word of letters, digits and _"
    elif rule.pattern and re.fullmatch(rule.pattern, value) is None:
        return f"what {rule.pattern} matches"
    if rule.choices and value not in rule.choices:
        return f"one of {', '.join(map(str, rule.choices))}"
    return ""


def settings_defines(settings: Mapping[str, Setting]) -> list[str]:
    """The compiler flags of `[console.settings]`: `x_y = 3` is -DPORT_X_Y=3."""
    return [f"-DPORT_{key.upper()}={value}" for key, value in settings.items()]
