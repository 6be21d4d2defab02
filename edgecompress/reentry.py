"""What a finished fit leaves for the next one: its measurements, its trials and its own question.

    search/job.json             model, data, target, budget and options as they were asked for
    search/sensitivity-*.json   what every single change does to the outputs
    search/trial-*.json         each candidate as it was judged

`fit --from FOLDER --flash 256K` asks the same question with another budget: nothing is measured
twice, and candidates judged before compete with new ones.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecompress.errors import BadInput
from edgecompress.model.symbols import is_symbol
from edgecompress.records import Record

if TYPE_CHECKING:
    from edgecompress.plan.trials import Trial
    from edgecompress.workspace import Checkpoints

FOLDER = "search"
_JOB = "job.json"
_KEPT = ("trial-*.json", "sensitivity-*.json")


class Asked(Record):
    """The options of a `fit` that a later one starts from."""

    model: str
    data: str | None
    target: str
    flash: str | int | None
    ram: str | int | None
    latency_us: float | None
    effort: str
    seed: int
    optimize: str
    metric: str | None = None
    input_shape: tuple[int, ...] | None = None


class Kept:
    """Checkpoints of this run, then what an earlier result kept (`plan.trials.Store`)."""

    def __init__(self, checkpoints: Checkpoints, earlier: Path | None) -> None:
        self._checkpoints = checkpoints
        self._earlier = None if earlier is None else earlier / FOLDER

    def load(self, stage: str) -> bytes | None:
        found = self._checkpoints.load(stage)
        if found is None and self._earlier is not None and (self._earlier / stage).is_file():
            return (self._earlier / stage).read_bytes()
        return found

    def save(self, stage: str, content: bytes) -> None:
        self._checkpoints.save(stage, content)

    def trials(self) -> list[Trial]:
        """Those of the earlier result; damaged files are as if they were not there."""
        from pydantic import ValidationError

        from edgecompress.plan.trials import Trial

        found = []
        for path in sorted(self._earlier.glob(_KEPT[0])) if self._earlier else ():
            try:
                found.append(Trial.from_json(path.read_bytes()))
            except ValidationError:
                continue
        return found

    def write(self, folder: Path, asked: Asked | None) -> None:
        """Everything kept, old and new, into a result's folder."""
        target = folder / FOLDER
        sources = [self._earlier, self._checkpoints.folder]
        for source in sources:
            for path in (p for pattern in _KEPT for p in source.glob(pattern)) if source else ():
                target.mkdir(exist_ok=True)
                shutil.copyfile(path, target / path.name)
        if asked is not None:
            target.mkdir(exist_ok=True)
            (target / _JOB).write_text(asked.to_json())


def read_asked(folder: Path, *, given: dict[str, Any], trust: bool) -> Asked:
    """The question of the result in `folder`.

    Args:
        given: what the user names again.
        trust: Python code the file names may be imported. Without it only code that the user
            names again is.

    Raises:
        BadInput: no such result, a damaged file, or code that is not trusted.
    """
    from pydantic import ValidationError

    path = folder / FOLDER / _JOB
    if not path.is_file():
        raise BadInput(
            f"{folder} holds no search to start from ({FOLDER}/{_JOB} is missing).",
            next_step="Name a folder that `edgecompress fit` wrote.",
        )
    try:
        asked = Asked.from_json(path.read_bytes())
    except ValidationError as error:
        raise BadInput(f"{path} is damaged: {error.errors()[0]['msg']}.") from None
    for option in ("model", "data", "metric"):
        value = getattr(asked, option)
        if value and is_symbol(value) and given.get(option) is None and not trust:
            raise BadInput(
                f"{path} names Python code as its {option}: {value}.",
                next_step=f"Name it again ({_spelled(option, value)}), or add --trust.",
            )
    return asked


def _spelled(option: str, value: str) -> str:
    return value if option == "model" else f"--{option} {value}"
