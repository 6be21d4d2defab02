"""Trials over two Ray nodes on the loopback interface, and over none."""

from __future__ import annotations

import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from edgecompress.cli.app import main
from edgecompress.cli.options import with_ray_address
from edgecompress.errors import BadInput
from edgecompress.plan.ray_trials import check_cluster
from edgecompress.plan.scores import Scorer
from edgecompress.plan.trials import MemoryStore, run_trials
from edgecompress.progress import SILENT, Silent
from edgecompress.records import Budget, Plan, Prediction

pytest.importorskip("ray", reason="the extra `ray` is not installed")

OBJECT_STORE_BYTES = 80 << 20
NODE = {"num_cpus": 1, "object_store_memory": OBJECT_STORE_BYTES, "node_ip_address": "127.0.0.1"}
METRIC = """\
import os, pathlib, signal, time
import ray

here = pathlib.Path(__file__).parent

def dies_once(outputs, labels):
    try:
        (here / "died").touch(exist_ok=False)
    except FileExistsError:
        return 1.0
    os.kill(os.getpid(), signal.SIGKILL)

def sleeps(outputs, labels):
    (here / "waking").write_text(str(os.getpid()))
    (here / "waking").rename(here / "asleep")
    time.sleep(600)

def stays_on_a_doomed_node(outputs, labels):
    if ray.get_runtime_context().get_node_id() == (here / "doomed").read_text():
        (here / "begun").touch()
        time.sleep(600)
    return 2.0
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator:
    """Two nodes of one processor each; nothing of them is heard beyond this machine."""
    patch = pytest.MonkeyPatch()
    # a socket's path has 107 characters at most, so not below pytest's own folder
    folder = tempfile.mkdtemp(prefix="ray")
    patch.setenv("RAY_TMPDIR", folder)
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    before = signal.getsignal(signal.SIGTERM)
    with patch.context() as patched:
        # without it Ray turns 127.0.0.1 into the machine's outer address
        patched.setattr("ray._private.ray_constants.ENABLE_RAY_CLUSTER", False)
        from ray.cluster_utils import Cluster

        started = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        try:
            started.add_node(**NODE)
            yield started
        finally:
            started.shutdown()
            signal.signal(signal.SIGTERM, before)
            patch.undo()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where a module of metrics is that make trouble on nodes."""
    name = f"metric_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(METRIC)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return name


def named(count: int) -> list[tuple[str, Plan]]:
    return [
        (
            f"width {8 + 2 * at}",
            Plan(
                model_hash="1" * 64, data_hash="0" * 64, target="cortex-m4", budget=Budget(),
                seed=at, effort="fast", finetune_steps=3, widths={"conv1": 8 + 2 * at},
                predicted=Prediction(flash_bytes=1, ram_bytes=1),
            ),
        )
        for at in range(count)
    ]  # fmt: skip


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.done = 0

    def advance(self, done: int = 1) -> None:
        self.done += done

    def note(self, message: str) -> None:
        self.notes.append(message)


def test_a_cluster_gives_the_scores_this_process_does(cluster, residual, splits, one_thread):
    scorer, handler = Scorer.of_source(residual, splits), signal.getsignal(signal.SIGTERM)
    alone = run_trials(residual, splits, named(4), scorer, MemoryStore(), SILENT)
    notes, store = Notes(), MemoryStore()
    far = run_trials(residual, splits, named(4), scorer, store, notes, ray=cluster.address)
    assert far == alone
    assert len({trial.score for trial in far}) == 4
    assert "4 trials ran on 2 nodes of the Ray cluster." in notes.notes
    assert notes.done == 12
    assert len(store.kept) == 4
    assert signal.getsignal(signal.SIGTERM) is handler


def test_the_trial_of_a_killed_worker_is_done_again(cluster, residual, splits, metric):
    scorer = Scorer.of_source(residual, splits, f"{metric}:dies_once")
    made = run_trials(
        residual, splits, named(2), scorer, MemoryStore(), SILENT, ray=cluster.address
    )
    assert Path("died").exists()
    assert [trial.score.value for trial in made] == [1.0, 1.0]


def test_the_trial_of_a_lost_node_is_done_elsewhere(cluster, residual, splits, metric):
    doomed = cluster.add_node(**NODE)
    Path("doomed").write_text(doomed.node_id)

    def lose() -> None:
        while not Path("begun").exists():
            time.sleep(0.1)
        cluster.remove_node(doomed, allow_graceful=False)

    loser = threading.Thread(target=lose, daemon=True)
    loser.start()
    scorer = Scorer.of_source(residual, splits, f"{metric}:stays_on_a_doomed_node")
    made = run_trials(
        residual, splits, named(3), scorer, MemoryStore(), SILENT, ray=cluster.address
    )
    loser.join(5)
    assert Path("begun").exists()
    assert [trial.score.value for trial in made] == [2.0, 2.0, 2.0]


def test_what_is_bad_on_a_node_is_the_same_clear_line(cluster, residual, splits, metric):
    scorer = Scorer.of_source(residual, splits, f"{metric}:dies_once")
    Path("died").touch()
    Path(f"{metric}.py").write_text("def dies_once(outputs, labels):\n    return outputs['no']\n")
    with pytest.raises(BadInput, match=r"The metric .* failed"):
        run_trials(residual, splits, named(1), scorer, MemoryStore(), SILENT, ray=cluster.address)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:1", "No Ray cluster answers at 127.0.0.1:1: Connection refused"),
        ("ray://127.0.0.1:1", "No Ray cluster answers"),
        ("127.0.0.1:99999", "No Ray cluster answers"),
        ("local", "is not the address of a Ray cluster"),
        ("nonsense", "is not the address of a Ray cluster"),
    ],
)
def test_no_cluster_is_one_clear_line(address, words):
    with pytest.raises(BadInput, match=words) as caught:
        check_cluster(address)
    assert "ray start --head" in (caught.value.next_step or "")


def test_the_address_of_the_environment_is_checked(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(BadInput, match=r"127\.0\.0\.1:1"):
        check_cluster("auto")


def test_a_cluster_ray_would_not_find_is_told_apart(monkeypatch):
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "127.0.0.2")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(BadInput, match=r"would look for it at 127\.0\.0\.2") as caught:
            check_cluster(address)
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0" in str(caught.value)


def test_an_interrupted_search_kills_its_trials(cluster, residual, splits, metric):
    """Else the next trials would wait for them ten minutes."""
    scorer = Scorer.of_source(residual, splits, f"{metric}:sleeps")

    def interrupt() -> None:
        while not Path("asleep").exists():
            time.sleep(0.1)
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run_trials(residual, splits, named(2), scorer, MemoryStore(), SILENT, ray=cluster.address)
    sleeper = int(Path("asleep").read_text())
    for _ in range(100):
        if not Path(f"/proc/{sleeper}").exists():
            break
        time.sleep(0.1)
    assert not Path(f"/proc/{sleeper}").exists()


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BadInput) as caught:
        check_cluster("auto")
    assert "pip install 'edgecompress[ray]'" in str(caught.value)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("fit --ray", "fit --ray=auto"),
        ("fit --ray --seed 1", "fit --ray=auto --seed 1"),
        ("fit --ray head:6379 net.onnx", "fit --ray head:6379 net.onnx"),
        ("fit --ray ray://head:10001", "fit --ray ray://head:10001"),
        ("fit --ray net.onnx", "fit --ray=auto net.onnx"),
        ("fit --ray pkg.mod:net", "fit --ray=auto pkg.mod:net"),
        ("fit --ray=head:6379", "fit --ray=head:6379"),
    ],
)
def test_the_address_may_be_left_out(typed, meant):
    assert with_ray_address(typed.split()) == meant.split()


def test_fit_says_at_once_that_no_cluster_answers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--ray", "127.0.0.1:1"]) == 2
    said = capsys.readouterr().err
    assert "No Ray cluster answers at 127.0.0.1:1" in said
    assert "Traceback" not in said
    assert not (tmp_path / "build" / "demo-cortex-m7").exists()
