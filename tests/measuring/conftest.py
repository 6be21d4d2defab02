"""Artifacts to measure: the hand-written tiny image for each test, linked once a session."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "device"))
sys.path.insert(0, str(Path(__file__).parent))

from tiny_image import build_tiny_image

from edgecompress.target.registry import load_target


@pytest.fixture(scope="session")
def linked(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    built: dict[str, Path] = {}

    def get(target: str) -> Path:
        if target not in built:
            folder = tmp_path_factory.mktemp(target)
            build_tiny_image(load_target(target), folder)
            built[target] = folder
        return built[target]

    return get


@pytest.fixture
def artifact(linked: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """`artifact("cortex-m7")`: a folder of this test's own, without measurements."""

    def get(target: str) -> Path:
        folder = tmp_path / target
        folder.mkdir()
        for name in ("image.json", "firmware", "firmware.elf"):
            if (linked(target) / name).exists():
                shutil.copy(linked(target) / name, folder / name)
        return folder

    return get
