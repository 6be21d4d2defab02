"""The tiny image, linked once a session for each target the device tests run on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_image import build_tiny_image

from edgecompress.target.registry import load_target
from edgecompress.target.schema import DeviceProfile


@pytest.fixture(scope="session")
def tiny_image(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`tiny_image("cortex-m7")` is a folder with its firmware and image.json."""
    built: dict[tuple[str, str], Path] = {}

    def get(target: str, slip: str = "") -> Path:
        if (target, slip) not in built:
            folder = tmp_path_factory.mktemp(target)
            build_tiny_image(load_target(target), folder, slip=slip)
            built[target, slip] = folder
        return built[target, slip]

    return get


@pytest.fixture(scope="session")
def m7() -> DeviceProfile:
    return load_target("cortex-m7")


@pytest.fixture(scope="session")
def x86() -> DeviceProfile:
    return load_target("x86-64")
