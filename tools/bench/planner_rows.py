"""The planner bench's finished rows, and which code made them."""

from __future__ import annotations

import hashlib
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
_DECIDING = ("edgecompress", "runtimes", "targets")
_TEXT = {".py", ".c", ".h", ".j2", ".ld", ".toml", ".json"}


class Rows:
    """The finished rows, in a file that only grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = []
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            self.rows = [json.loads(line) for line in lines if line.endswith("}")]

    def get(self, **key: Any) -> dict[str, Any] | None:
        return next((row for row in self.rows if all(row[k] == v for k, v in key.items())), None)

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), file=sys.stderr, flush=True)


@cache
def code_version() -> str:
    """Hash of the tool's sources, not the bench's own: a table made in slices says whether they
    agree."""
    digest = hashlib.sha256()
    found = (path for folder in _DECIDING for path in (_ROOT / folder).rglob("*"))
    for path in sorted(path for path in found if path.suffix in _TEXT):
        digest.update(path.relative_to(_ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def provenance(rows: list[dict[str, Any]]) -> str:
    """How many rows this checkout's code made."""
    same = sum(row.get("code") == code_version() for row in rows)
    return f"{same} of {len(rows)} rows were made by this very code ({code_version()})."
