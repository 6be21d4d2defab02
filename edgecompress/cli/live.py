"""Live progress on stderr: bars on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self, TextIO

from edgecompress.units import format_us

_PLAIN_SECONDS = 10.0
"""A plain counter line at most this often: a log file should stay readable."""


class PlainProgress:
    """One line when a stage begins, one every ten seconds while it counts."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._started = time.monotonic()
        self._printed = self._started
        self._name, self._total, self._done = "", None, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def stage(self, name: str, total: int | None = None) -> None:
        self._name, self._total, self._done = name, total, 0
        self._line(name)

    def advance(self, done: int = 1) -> None:
        self._done += done
        if time.monotonic() - self._printed >= _PLAIN_SECONDS:
            of_total = f"/{self._total}" if self._total else ""
            self._line(f"{self._name} {self._done}{of_total}")

    def note(self, message: str) -> None:
        self._line(f"  {message}")

    def _line(self, text: str) -> None:
        self._printed = time.monotonic()
        elapsed = self._printed - self._started
        print(f"[{elapsed:6.1f} s] {text}", file=self._stream, flush=True)


class BarProgress:
    """A line a stage: mark, name, bar and count where steps are counted, elapsed time."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import Progress, TextColumn

        self._console = Console(file=stream)
        self._bars = Progress(
            _mark_column(),
            TextColumn("{task.description}", markup=False),
            _count_column(),
            _elapsed_column(),
            console=self._console,
        )
        self._task = None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None
    ) -> None:
        self._finish("failed" if kind else "done")
        self._bars.stop()

    def stage(self, name: str, total: int | None = None) -> None:
        self._finish("done")
        self._task = self._bars.add_task(name, total=total, state="running")

    def advance(self, done: int = 1) -> None:
        if self._task is not None:
            self._bars.advance(self._task, done)

    def note(self, message: str) -> None:
        self._console.print(f"  {message}", style="dim", highlight=False, markup=False)

    def _finish(self, state: str) -> None:
        if self._task is not None:
            self._bars.update(self._task, state=state)
            self._bars.stop_task(self._task)
            self._task = None


def _mark_column():
    from rich.progress import ProgressColumn, SpinnerColumn, Task
    from rich.text import Text

    class Mark(ProgressColumn):
        """A spinner while the stage runs, then how it ended."""

        max_refresh = None

        def __init__(self) -> None:
            super().__init__()
            self._spinner = SpinnerColumn()

        def render(self, task: Task):
            if task.fields["state"] == "running":
                return self._spinner.render(task)
            done = task.fields["state"] == "done"
            return Text("✓", style="green") if done else Text("✗", style="red")

    return Mark()


def _count_column():
    from rich.progress import BarColumn, ProgressColumn, Task
    from rich.table import Table
    from rich.text import Text

    class Count(ProgressColumn):
        """A bar and "120/400" for a running stage whose steps are counted."""

        def __init__(self) -> None:
            super().__init__()
            self._bar = BarColumn(bar_width=24)

        def render(self, task: Task):
            if not task.total or task.fields["state"] != "running":
                return Text("")
            row = Table.grid(padding=(0, 1))
            row.add_row(self._bar.render(task), f"{task.completed:.0f}/{task.total:.0f}")
            return row

    return Count()


def _elapsed_column():
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class Elapsed(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(format_us(1e6 * (task.elapsed or 0.0)), style="dim", justify="right")

    return Elapsed()


def open_progress(stream: TextIO) -> PlainProgress | BarProgress:
    """Bars where a person is watching `stream`, plain lines otherwise."""
    return BarProgress(stream) if stream.isatty() else PlainProgress(stream)
