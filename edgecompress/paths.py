"""Where the files that ship beside the code live, in a checkout and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shipped(folder: str) -> Path:
    """`targets` or `runtimes`: beside the package in a checkout, inside it in a wheel."""
    beside = _PACKAGE.parent / folder
    return (
        beside if (_PACKAGE.parent / "pyproject.toml").exists() else _PACKAGE / "_shipped" / folder
    )
