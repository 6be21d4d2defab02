"""How long work tells whoever asked how far it is, without knowing about screens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    def stage(self, name: str, total: int | None = None) -> None:
        """A new stage begins; `total` steps if they can be counted."""
        ...

    def advance(self, done: int = 1) -> None:
        """`done` more steps of the current stage."""
        ...

    def note(self, message: str) -> None:
        """A finding worth a line on the screen."""
        ...


class Silent:
    """The default: says nothing."""

    def stage(self, name: str, total: int | None = None) -> None: ...

    def advance(self, done: int = 1) -> None: ...

    def note(self, message: str) -> None: ...


SILENT: Progress = Silent()
