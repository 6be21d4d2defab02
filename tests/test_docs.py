"""What the documents say is run: links, commands, the target example, and the whole tour."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from edgecompress.cli import main
from edgecompress.target import load_target, target_names

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text("utf-8"), re.M | re.S)


@document
def test_links_and_named_files_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    linked = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if ":" not in target]
    assert all((path.parent / target).exists() for target in linked), linked
    named = re.findall(r"`((?:edgecompress|runtimes|tests|tools|docs|targets)/[\w./-]*)`", text)
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing


@document
def test_commands_name_real_commands_and_options(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = path.read_text(encoding="utf-8")
    for line in re.findall(r"^(?:edgecompress|\./tools/run) (.+)$", text, re.M):
        words = line.split()
        if words[0] in ("test", "lint", "types"):
            continue
        command = words[:2] if words[0] == "targets" else words[:1]
        assert main([*command, "--help"]) == 0
        offered = capsys.readouterr().out
        for option in (word for word in words if word.startswith("--")):
            assert option in offered, line


def test_readme_lists_every_generic_target() -> None:
    """The chips are too many for it; `targets list` and docs/add-a-target.md name the families."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    generic = {name for name in target_names() if not load_target(name).family}
    assert generic
    assert generic <= set(re.findall(r"`([\w-]+)`", text))


def test_readme_config_is_accepted(tmp_path: Path) -> None:
    from edgecompress.config import CONFIG_NAME, load_config

    (example,) = blocks(ROOT / "README.md", "toml")
    (tmp_path / CONFIG_NAME).write_text(example, encoding="utf-8")
    assert load_config(tmp_path).flash == 512 * 1024


def test_the_target_examples_are_targets(tmp_path: Path) -> None:
    examples = blocks(ROOT / "docs" / "add-a-target.md", "toml")
    assert len(examples) == 2
    for number, example in enumerate(examples):
        name = tomllib.loads(example)["name"]
        path = tmp_path / f"{name}.toml"
        path.write_text(example, encoding="utf-8")
        assert load_target(str(path)).has_firmware == bool(number)
        assert main(["targets", "check", str(path)]) == 0


@pytest.mark.slow
def test_the_tour_runs_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    for number, block in enumerate(blocks(ROOT / "docs" / "tour.md", "python")):
        exec(compile(block, f"docs/tour.md, block {number + 1}", "exec"), names)
    out = capsys.readouterr().out
    assert "bytes of arena" in out
    assert names["checked"].exact  # type: ignore[attr-defined]
