"""The output folder is all or nothing; checkpoints are whole or absent."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest

from edgecompress.errors import UnwritableOutput
from edgecompress.workspace import Checkpoints, OutputFolder


def test_files_appear_together_under_the_final_name(tmp_path):
    final = tmp_path / "build" / "net"
    with OutputFolder(final) as folder:
        (folder.path / "result.json").write_text("{}")
        assert not final.exists()
    assert (final / "result.json").read_text() == "{}"
    assert [path.name for path in final.parent.iterdir()] == ["net"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_leaves_the_old_result_untouched(tmp_path, error):
    final = tmp_path / "net"
    with OutputFolder(final) as folder:
        (folder.path / "result.json").write_text("old")
    with pytest.raises(error), OutputFolder(final) as folder:
        (folder.path / "result.json").write_text("half")
        raise error
    assert (final / "result.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def test_a_folder_of_the_users_own_is_never_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UnwritableOutput, match="not an edgecompress result"):
        OutputFolder(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "net").write_text("")
    with pytest.raises(UnwritableOutput, match="is a file"):
        OutputFolder(tmp_path / "net")


def test_a_parent_that_is_a_file_is_unwritable(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UnwritableOutput, match="cannot be written"),
        OutputFolder(tmp_path / "file" / "net"),
    ):
        pass


def test_the_result_is_readable_by_others(tmp_path):
    with OutputFolder(tmp_path / "net") as folder:
        (folder.path / "result.json").write_text("{}")
    assert stat.S_IMODE((tmp_path / "net").stat().st_mode) == 0o755


def test_leftovers_of_a_killed_run_are_swept_and_those_of_a_live_one_kept(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead = tmp_path / f".net.partial-{ended.pid}-x"
    live = tmp_path / f".net.partial-{os.getppid()}-x"
    dead.mkdir()
    live.mkdir()
    with OutputFolder(tmp_path / "net") as folder:
        (folder.path / "result.json").write_text("{}")
    assert not dead.exists()
    assert live.exists()


def test_checkpoints_are_addressed_by_their_inputs(tmp_path):
    one = Checkpoints(tmp_path / "net", {"model": "a", "seed": 0})
    other = Checkpoints(tmp_path / "net", {"model": "a", "seed": 1})
    one.save("plan.json", b"plan")
    assert Checkpoints(tmp_path / "net", {"seed": 0, "model": "a"}).load("plan.json") == b"plan"
    assert other.load("plan.json") is None
    one.clear()
    assert one.load("plan.json") is None


def test_measurements_outlive_the_result_they_were_made_with(tmp_path):
    final = tmp_path / "net"
    with OutputFolder(final) as folder:
        (folder.path / "result.json").write_text("old")
    (final / "measurements").mkdir()
    (final / "measurements" / "1.json").write_text("on a board")
    (final / "other.json").write_text("goes")
    with OutputFolder(final) as folder:
        (folder.path / "result.json").write_text("new")
    assert (final / "result.json").read_text() == "new"
    assert (final / "measurements" / "1.json").read_text() == "on a board"
    assert not (final / "other.json").exists()
