"""The screen of `profile --watch`: the latest rounds on stderr, live on a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from edgecompress.measuring.watching import Round
    from edgecompress.records import Measurement

_SHOWN_ROUNDS = 15


def watch_device(image_dir: Path, device: str | None, **chosen: Any) -> Measurement:
    """Watches until Ctrl-C; what was measured by then."""
    from edgecompress import api

    with _screen(sys.stderr) as screen:
        return api.watch(image_dir, screen.add, device=device, progress=screen, **chosen)


class _Lines:
    """One line a round: for files and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def stage(self, name: str, total: int | None = None) -> None:  # noqa: ARG002
        self._print(name)

    def advance(self, done: int = 1) -> None:
        """Rounds say enough."""

    def note(self, message: str) -> None:
        self._print(message)

    def add(self, made: Round) -> None:
        from edgecompress.report.measuring import round_line

        self._print(round_line(made))

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class _LiveTable(_Lines):
    """A table of the latest rounds that redraws itself."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__(stream)
        self._rounds: deque[Round] = deque(maxlen=_SHOWN_ROUNDS)
        self.live = Live(console=Console(file=stream), auto_refresh=False)

    def add(self, made: Round) -> None:
        from edgecompress.report.measuring import rounds_table

        self._rounds.append(made)
        self.live.update(rounds_table(list(self._rounds)), refresh=True)

    def _print(self, text: str) -> None:
        self.live.console.print(text, highlight=False, markup=False)


@contextlib.contextmanager
def _screen(stream: TextIO) -> Iterator[_Lines]:
    if not stream.isatty():
        yield _Lines(stream)
        return
    table = _LiveTable(stream)
    with table.live:
        yield table
