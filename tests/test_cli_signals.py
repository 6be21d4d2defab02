"""Ctrl-C and SIGTERM reach a working command as a person would send them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

WORKING = """
import sys, time
from pathlib import Path
from edgecompress import api
from edgecompress.cli import main
from edgecompress.workspace import OutputFolder

def fit(*, output, progress, **_):
    with OutputFolder(output) as folder:
        (folder.path / "half").write_text("half")
        progress.stage("Working")
        time.sleep(60)

api.fit = fit
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("sent", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
@pytest.mark.parametrize("json_option", [[], ["--json"]], ids=["text", "json"])
def test_an_interrupt_is_one_line_and_leaves_nothing(
    tmp_path: Path, sent: signal.Signals, code: int, word: str, json_option: list[str]
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKING, "fit", "-t", "cortex-m7", "-o", "out", *json_option],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    seen = ""
    while "Working" not in seen:
        line = process.stderr.readline()
        assert line, f"ended before it worked: {seen}"
        seen += line
    process.send_signal(sent)
    out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert err.strip().startswith(f"{word}; ")
    assert err.strip().count("\n") == 0
    assert list(tmp_path.iterdir()) == []
    if json_option:
        assert json.loads(out)["error"]["exit_code"] == code
    else:
        assert out == ""
