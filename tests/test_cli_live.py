from __future__ import annotations

import io

import pytest

from edgecompress.cli import live
from edgecompress.cli.live import BarProgress, PlainProgress, open_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_where_nobody_watches() -> None:
    stream = io.StringIO()
    progress = open_progress(stream)
    assert isinstance(progress, PlainProgress)
    with progress:
        progress.stage("Plan", total=100)
        for _ in range(100):
            progress.advance()
        progress.note("3 groups [a]")
    lines = stream.getvalue().splitlines()
    assert [line.partition("] ")[2] for line in lines] == ["Plan", "  3 groups [a]"]


def test_plain_counters_speak_only_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(live.time, "monotonic", lambda: now)
    stream = io.StringIO()
    with PlainProgress(stream) as progress:
        progress.stage("Tune", total=40)
        for _ in range(40):
            now += 1.0
            progress.advance()
    assert [line.partition("] ")[2] for line in stream.getvalue().splitlines()] == [
        "Tune", "Tune 10/40", "Tune 20/40", "Tune 30/40", "Tune 40/40",
    ]  # fmt: skip


def test_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    progress = open_progress(stream)
    assert isinstance(progress, BarProgress)
    with progress:
        progress.advance()
        progress.stage("Load")
        progress.stage("Tune [x]", total=4)
        progress.advance(3)
        progress.note("a [note]")
    text = stream.getvalue()
    assert "✓" in text
    assert "✗" not in text
    assert "Tune [x]" in text
    assert "a [note]" in text


def test_a_failed_stage_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()

    def fail() -> None:
        with BarProgress(stream) as progress:
            progress.stage("Load")
            progress.stage("Link")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    text = stream.getvalue()
    assert text.rindex("✗") < text.rindex("Link")
    assert text.rindex("✓") < text.rindex("Load")
