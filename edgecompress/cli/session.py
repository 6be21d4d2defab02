"""What every command does around its one call: options, quiet stdout, results, exit codes."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgecompress.cli.failures import EXIT_DEVICE_TROUBLE, EXIT_DOES_NOT_FIT, EXIT_FITS
from edgecompress.cli.live import open_progress

if TYPE_CHECKING:
    from rich.console import RenderableType

    from edgecompress.progress import Progress
    from edgecompress.records import Plan, Result

DEFAULT_TARGET = "cortex-m7"


@dataclass(frozen=True)
class Chosen:
    """The options of a command once the command line and edgecompress.toml are merged."""

    model: str | None
    data: str | None
    target: str | None
    flash: int | None
    ram: int | None
    latency_us: float | None
    effort: Literal["fast", "balanced", "max"]
    optimize: Literal["size", "speed", "balanced"]
    seed: int
    output: Path | None
    input_shape: tuple[int, ...] | None

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments that fit, plan and compile_model share."""
        return {
            "model": self.model or "demo",
            "data": self.data,
            "target": self.target or DEFAULT_TARGET,
            "flash": self.flash,
            "ram": self.ram,
            "latency_us": self.latency_us,
            "output": self.output,
            "input_shape": self.input_shape,
        }


def choose(*, default_model: str | None = None, **given: Any) -> Chosen:
    """Lays the command line over the working folder's edgecompress.toml.

    Args:
        default_model: the model when neither names one.
        given: `Config` fields from the command line, None where not given.

    Raises:
        BadConfig: a bad value on the command line or in the file, which it names.
        UnknownTarget, InvalidTarget: before any heavy import, so at once.
    """
    from edgecompress.config import check_options, load_config
    from edgecompress.target import load_target

    spoken = {name: _plain(value) for name, value in given.items() if value is not None}
    line = check_options(spoken, origin="command line").model_dump(exclude_none=True)
    merged = load_config(Path.cwd()).model_copy(update=line)
    if merged.target is not None:
        load_target(merged.target)
    return Chosen(
        model=merged.model or default_model,
        data=merged.data,
        target=merged.target,
        flash=merged.flash,
        ram=merged.ram,
        latency_us=merged.latency_us,
        effort=merged.effort or "fast",
        optimize=merged.optimize or "balanced",
        seed=merged.seed or 0,
        output=Path(merged.output) if merged.output else None,
        input_shape=merged.input_shape,
    )


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, str | Path) else value


def say_defaults(progress: Progress, chosen: Chosen, doing: str) -> None:
    """Says aloud what the user left for the tool to choose."""
    target = chosen.target or DEFAULT_TARGET
    if chosen.model is None:
        progress.note(f"No model given: {doing} the bundled demo, a ResNet on Fashion-MNIST.")
    if chosen.target is None:
        progress.note(f"No target given: {target}. Others: edgecompress targets list.")


@contextlib.contextmanager
def working(*, debug: bool) -> Iterator[Progress]:
    """Live progress on stderr, while whatever libraries print to stdout goes there too.

    stdout then carries the command's answer alone, which is what `--json` promises.
    """
    with contextlib.ExitStack() as stack:
        if not debug:
            stack.enter_context(_hushed())
        progress = stack.enter_context(open_progress(sys.stderr))
        stack.enter_context(_stdout_on_stderr())
        yield progress


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Library warnings and log lines are for developers: --debug shows them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


@contextlib.contextmanager
def _stdout_on_stderr() -> Iterator[None]:
    """Python's stdout, and file descriptor 1 for native code and child processes."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def show(renderable: RenderableType) -> None:
    """A table on stdout: coloured and as wide as a terminal, plain text in a pipe."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console(file=sys.stdout, highlight=False).print(renderable)
    else:
        from edgecompress.report.text import plain_text

        sys.stdout.write(plain_text(renderable))


def show_result(result: Result, output: Path | None, *, as_json: bool) -> None:
    """The final table, or exactly what result.json holds."""
    if as_json:
        sys.stdout.write(result.to_json())
        return
    from edgecompress.report.text import render

    folder = output or Path("build") / f"{result.model}-{result.target}"
    show(render(result, folder=folder if folder.is_dir() else None))


def result_exit_code(result: Result) -> int:
    """0 fits, 1 does not, 3 when the three executions disagree."""
    if result.verified.first_difference is not None:
        return EXIT_DEVICE_TROUBLE
    return EXIT_FITS if result.fits else EXIT_DOES_NOT_FIT


def plan_exit_code(plan: Plan) -> int:
    """0 when the prediction meets the budget, else 1."""
    budget, predicted = plan.budget, plan.predicted
    flash_fits = budget.flash_bytes is None or predicted.flash_bytes <= budget.flash_bytes
    ram_fits = budget.ram_bytes is None or predicted.ram_bytes <= budget.ram_bytes
    return EXIT_FITS if flash_fits and ram_fits else EXIT_DOES_NOT_FIT
