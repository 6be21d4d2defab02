"""The comparison with published silicon: its arithmetic, and that another order is said so."""

from __future__ import annotations

import copy
import importlib.util
import json
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "tools" / "bench"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    specification = importlib.util.spec_from_file_location("check", FOLDER / "cycle_check.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def published() -> dict[str, Any]:
    return tomllib.loads((FOLDER / "published.toml").read_text())


def test_the_model_and_every_board_agree_on_the_order(
    tool: ModuleType, published: dict[str, Any]
) -> None:
    text = "\n".join(tool.check(published))
    assert text.count("same order") == len(published["boards"])
    assert "published / modelled: ic 1.28, vww 1.25, kws 1.32, ad 1.43" in text


def test_another_order_is_said(tool: ModuleType, published: dict[str, Any]) -> None:
    wrong = copy.deepcopy(published)
    wrong["boards"][0]["ad"] = 500.0
    assert "ANOTHER ORDER" in tool.check(wrong)[1]


def test_the_note_quotes_what_the_tool_prints(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"model": "x", "core": "cortex-m7", "m4_cycles": 200,
             "cycles": {"low": 100, "high": 150}}, {"model": "x", "core": "cortex-m4"}]  # fmt: skip
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    assert tool.main([str(tmp_path / "rows.json")]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == "M7 model for each M4 cycle, x: 0.50 to 0.75"
    note = (FOLDER.parents[1] / "docs" / "notes" / "cycle-model.md").read_text()
    assert all(line in note for line in lines)
