from __future__ import annotations

import json
import tomllib
from typing import Any

import jsonschema
import pytest

from edgecompress.paths import shipped
from edgecompress.target.editor_schema import SCHEMA_NAME, editor_schema, editor_schema_text

FILES = sorted(shipped("targets").glob("*.toml"))


def faults(document: dict[str, Any]) -> list[str]:
    checker = jsonschema.Draft202012Validator(editor_schema())
    return [error.message for error in checker.iter_errors(document)]


def test_the_shipped_schema_is_current() -> None:
    text = (shipped("targets") / SCHEMA_NAME).read_text(encoding="utf-8")
    assert text == editor_schema_text(), "write it with `edgecompress targets schema --force -o`"
    jsonschema.Draft202012Validator.check_schema(json.loads(text))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_shipped_file_passes(path: Any) -> None:
    assert not faults(tomllib.loads(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nam = 'board'", "'nam' was unexpected"),
        ("[core]\nclok_hz = 1", "'clok_hz' was unexpected"),
        ("kind = 'toaster'", "'toaster' is not one of"),
        ("[core]\nclock_hz = 0", "0 is less than or equal to the minimum"),
        ("[[variants]]\ndescription = 'no name'", "'name' is a required property"),
        ("[[variants]]\nname = 'a'\ninherit = 'b'", "'inherit' was unexpected"),
        ("[[regions]]\nname = 'RAM'\nkind = 'ram'\norigin = 0\nsize = '64 elephants'", "elephants"),
    ],
)
def test_an_editor_sees_what_is_wrong(text: str, said: str) -> None:
    found = faults(tomllib.loads(text))
    assert any(said in fault for fault in found), found


def test_what_is_inherited_need_not_be_written() -> None:
    assert not faults({"inherits": "cortex-m4", "name": "mine", "core": {"clock_hz": 1}})
