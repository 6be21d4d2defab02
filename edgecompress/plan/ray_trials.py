"""The same trials over a Ray cluster that somebody else started.

    model, data, scorer -> object store, once
    a plan              -> a task on any node with the processors -> its score

A trial is pure, so it does not matter where it runs. Every task computes with as many threads as
the process that asks, and with no GPU: on processors of one kind, with one build of PyTorch, its
score is the same bit for bit as that of an in-process trial. Other processors may pick other
kernels, whose sums end in other last bits; so may a trial here that uses a GPU.

Ray opens the ports that its protocol needs between driver and nodes; over `ray://` there are none
on this side. Nothing here starts a cluster.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from edgecompress import __version__
from edgecompress.compress.finetune import user_metric
from edgecompress.errors import BadInput, EdgeCompressError
from edgecompress.model.data import Splits
from edgecompress.model.trainable import Trainable
from edgecompress.plan.scores import Score, Scorer
from edgecompress.plan.trials import portable, tried
from edgecompress.progress import SILENT, Progress
from edgecompress.records import Plan

if TYPE_CHECKING:
    from types import ModuleType

AUTO = "auto"
RETRIES = 3
"""How often a trial is begun again after its worker or its node died."""
REACH_SECONDS = 5.0
NODE_SECONDS = 600.0
"""How long the trials wait for a node with enough processors: an autoscaler may be bringing one."""
_POLL_SECONDS = 5.0
_ADDRESS = re.compile(r"(ray://)?(?P<host>[\w.-]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_START = "Start one with `ray start --head`, or leave --ray out and use --jobs."


@dataclass(frozen=True)
class _Shared:
    """What every trial of a search needs. The user's metric goes by its name."""

    trainable: Trainable
    splits: Splits
    scorer: Scorer
    metric: str | None
    threads: int
    version: str


@dataclass(frozen=True)
class _Answer:
    """A trial's outcome where it came to one, else what of the user's input was bad; and where."""

    outcome: Score | str | None
    refused: tuple[str, str | None] | None
    node: str


def check_cluster(address: str) -> None:
    """Finds out in seconds what would otherwise end a search after its measurements.

    Args:
        address: "auto" for the cluster of this machine or of RAY_ADDRESS, "host:port" or
            "ray://host:port".

    Raises:
        BadInput: Ray is not installed, the address cannot be read, or nobody answers there.
    """
    ray = _ray()
    named = address
    if address == AUTO:
        named = os.environ.get("RAY_ADDRESS") or AUTO
    if named == AUTO:
        return
    found = _ADDRESS.fullmatch(named)
    if found is None:
        raise BadInput(
            f"'{named}' is not the address of a Ray cluster.",
            next_step="Write host:port, ray://host:port, or auto for this machine's. " + _START,
        )
    host, port = found["host"].strip("[]"), int(found["port"])
    trouble = _unheard(host, port)
    if trouble is not None:
        raise BadInput(f"No Ray cluster answers at {named}: {trouble}.", next_step=_START)
    if host not in _LOOPBACK or named.startswith("ray://"):
        return
    outer = ray.util.get_node_ip_address()
    if _unheard(outer, port) is not None:
        raise BadInput(
            f"The Ray cluster at {named} listens on this machine's loopback alone; Ray would look "
            f"for it at {outer}.",
            next_step="Set RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0, which leaves the address as it is.",
        )


def _unheard(host: str, port: int) -> str | None:
    """Why nobody answers there, None where somebody does."""
    try:
        socket.create_connection((host, port), REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        return getattr(error, "strerror", None) or str(error)
    return None


def on_ray(
    trainable: Trainable,
    splits: Splits,
    plans: Sequence[Plan],
    scorer: Scorer,
    address: str,
    progress: Progress,
) -> Iterator[tuple[int, Score | str]]:
    """(index of the plan, score or why training came to nothing), each as it finishes.

    A trial whose worker or node dies is begun again elsewhere, RETRIES times. However the caller
    leaves, Ctrl-C included, trials still running are killed.

    Raises:
        BadInput: no cluster there, or one that cannot run this, see `check_cluster`.
        EdgeCompressError: the cluster lost a trial for good. Those yielded before are good.
    """
    check_cluster(address)
    ray = _ray()
    threads = torch.get_num_threads()
    with _connected(ray, address):
        given = _Shared(
            portable(trainable), splits, replace(scorer, function=None), scorer.user_metric,
            threads, __version__,
        )  # fmt: skip
        shared = ray.put(given)
        task = ray.remote(_work).options(
            num_cpus=min(threads, _most_processors(ray) or threads),
            max_retries=RETRIES,
            scheduling_strategy="SPREAD",
        )
        running = {task.remote(shared, plan): at for at, plan in enumerate(plans)}
        nodes: set[str] = set()
        try:
            for done in _as_finished(ray, list(running)):
                at = running.pop(done)
                answer = _received(ray, done)
                nodes.add(answer.node)
                progress.advance(plans[at].finetune_steps)
                assert answer.outcome is not None
                yield at, answer.outcome
        finally:
            for left in running:
                ray.cancel(left, force=True)
    noun = "node" if len(nodes) == 1 else "nodes"
    progress.note(f"{len(plans)} trials ran on {len(nodes)} {noun} of the Ray cluster.")


def _work(given: _Shared, plan: Plan) -> _Answer:
    """Runs on a node: arrays come from its object store, read only; the model is a fresh copy."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    if given.version != __version__:
        message = f"A node of the cluster has edgecompress {__version__}, here is {given.version}."
        return _Answer(None, (message, "Install the same version everywhere."), node)
    torch.set_num_threads(given.threads)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            function = None if given.metric is None else user_metric(given.metric)
            scorer = replace(given.scorer, function=function)
            outcome = tried(given.trainable, given.splits, plan, scorer, SILENT)
    except BadInput as error:
        return _Answer(None, (error.message, error.next_step), node)
    return _Answer(outcome, None, node)


def _received(ray: ModuleType, done: Any) -> _Answer:
    try:
        answer: _Answer = ray.get(done)
    except ray.exceptions.RayTaskError as error:
        if "edgecompress" in str(error) and "ModuleNotFoundError" in str(error):
            raise BadInput(
                "A node of the Ray cluster has no edgecompress.",
                next_step=f"Install edgecompress {__version__} on every node.",
            ) from None
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise EdgeCompressError(
            f"The Ray cluster lost a trial {1 + RETRIES} times: {type(error).__name__}.",
            next_step="See that its nodes have the memory; run the same command again, finished "
            "trials are kept.",
        ) from error
    if answer.refused is not None:
        message, next_step = answer.refused
        raise BadInput(message, next_step=next_step)
    return answer


def _as_finished(ray: ModuleType, waiting: list[Any]) -> Iterator[Any]:
    """Each as it is done. Raises BadInput where no node can run any for NODE_SECONDS."""
    able = time.monotonic()
    while waiting:
        finished, waiting = ray.wait(waiting, num_returns=1, timeout=_POLL_SECONDS)
        yield from finished
        if finished or _most_processors(ray):
            able = time.monotonic()
        elif time.monotonic() - able > NODE_SECONDS:
            raise BadInput(
                f"For {NODE_SECONDS:.0f} s the Ray cluster has had no node with a processor.",
                next_step="Add one with `ray start --address`, or leave --ray out.",
            )


def _most_processors(ray: ModuleType) -> float:
    """Of the node that has the most; 0 where none is alive."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return max((resources.get("CPU", 0.0) for resources in alive), default=0.0)


@contextlib.contextmanager
def _connected(ray: ModuleType, address: str) -> Iterator[None]:
    """Within a connection: the caller's own if there is one, else ours, which ends with it."""
    if ray.is_initialized():
        yield
        return
    with _signals_kept():
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ImportError, ValueError, TimeoutError) as error:
            words = " ".join(str(error).split()).rstrip(".")
            where = "this machine" if address == AUTO else address
            raise BadInput(
                f"The Ray cluster at {where} cannot be used: {words}.", next_step=_START
            ) from error
    try:
        yield
    finally:
        with _signals_kept():
            ray.shutdown()


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself; here it must go on to end a run cleanly."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, kept)


def _ray() -> ModuleType:
    try:
        import ray
    except ImportError:
        raise BadInput(
            "Ray is not installed, so trials cannot go to a cluster.",
            next_step="Run: pip install 'edgecompress[ray]', or use --jobs.",
        ) from None
    return ray
