"""The output folder, all or nothing, and the checkpoints an interrupted run resumes from."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType

from edgecompress.errors import UnwritableOutput

MEASUREMENTS = "measurements"
"""A result's folder of what was measured on devices: the one thing nobody can make again."""


class OutputFolder:
    """Collects a command's files beside their final place and moves them there in one rename.

    Within the `with` block write to `path`. Leaving it normally replaces the final folder, whose
    measurements stay; leaving it by an exception (or a kill) leaves the final folder exactly as it
    was.

    Raises:
        UnwritableOutput: the place cannot be written, or holds files that are not an
            edgecompress result (they are never deleted). `marker` is the file that tells.
    """

    def __init__(self, final: Path, marker: str = "result.json"):
        self.final = final.absolute()
        self.path = self.final
        self._marker = marker
        self._refuse_foreign()

    def _refuse_foreign(self) -> None:
        if not self.final.exists():
            return
        if not self.final.is_dir():
            raise UnwritableOutput(f"{self.final} is a file.", next_step="Name a folder.")
        if any(self.final.iterdir()) and not (self.final / self._marker).is_file():
            raise UnwritableOutput(
                f"{self.final} holds files that are not an edgecompress result.",
                next_step="Name an empty or new folder with --output.",
            )

    def __enter__(self) -> OutputFolder:
        try:
            self.final.parent.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
            prefix = f"{self._partial_prefix}{os.getpid()}-"
            made = tempfile.mkdtemp(prefix=prefix, dir=self.final.parent)
        except OSError as error:
            raise UnwritableOutput(
                f"{self.final.parent} cannot be written: {error.strerror}.",
                next_step="Name another folder with --output.",
            ) from None
        self.path = Path(made)
        self.path.chmod(0o755)
        return self

    @property
    def _partial_prefix(self) -> str:
        return f".{self.final.name}.partial-"

    def _remove_leftovers(self) -> None:
        """Partial folders of runs that were killed: their process is gone."""
        for folder in self.final.parent.glob(f"{self._partial_prefix}*"):
            pid = folder.name.removeprefix(self._partial_prefix).split("-")[0]
            if pid.isdigit() and not _is_running(int(pid)):
                shutil.rmtree(folder, ignore_errors=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            return
        kept = self.final / MEASUREMENTS
        if kept.is_dir():
            shutil.copytree(kept, self.path / MEASUREMENTS, dirs_exist_ok=True)
        old = Path(f"{self.path}.old")
        if self.final.exists():
            os.replace(self.final, old)
        os.replace(self.path, self.final)
        shutil.rmtree(old, ignore_errors=True)
        self.path = self.final


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Checkpoints:
    """Finished stages of a run, addressed by the content of everything that went into them.

    They live beside the output folder until the run succeeds; the same command started again
    picks up after the last finished stage.
    """

    def __init__(self, final: Path, inputs: dict[str, object]):
        text = json.dumps(inputs, sort_keys=True, default=str)
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.folder = final.absolute().parent / f".{final.name}.stages-{key}"

    def load(self, stage: str) -> bytes | None:
        path = self.folder / stage
        return path.read_bytes() if path.is_file() else None

    def save(self, stage: str, content: bytes) -> None:
        """Raises UnwritableOutput; the file appears whole or not at all."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = self.folder / f"{stage}.{os.getpid()}.partial"
            partial.write_bytes(content)
            os.replace(partial, self.folder / stage)
        except OSError as error:
            raise UnwritableOutput(f"{self.folder} cannot be written: {error.strerror}.") from None

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
