"""What a run tells TensorBoard, where that is installed and asked for."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Protocol

from edgecompress.errors import BadConfig


class Log(Protocol):
    def scalar(self, name: str, value: float, step: int) -> None:
        """One point of the curve `name`."""
        ...

    def close(self) -> None:
        """Everything is on disk afterwards."""
        ...


class _Nothing:
    def scalar(self, name: str, value: float, step: int) -> None: ...

    def close(self) -> None: ...


def require_tensorboard() -> None:
    """Raises BadConfig where the package is not installed; nothing of it is imported."""
    if importlib.util.find_spec("tensorboard") is None:
        raise BadConfig(
            "Logs of the fine-tune need the package tensorboard, which is not installed.",
            next_step="pip install 'edgecompress[tensorboard]', or give no log folder.",
        )


class _TensorBoard:
    def __init__(self, folder: Path) -> None:
        require_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        try:
            self._writer = SummaryWriter(str(folder))
        except OSError as error:
            raise BadConfig(f"Logs cannot be written to '{folder}': {error.strerror}.") from error

    def scalar(self, name: str, value: float, step: int) -> None:
        self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


def open_log(folder: Path | None) -> Log:
    """A TensorBoard log in `folder`, or one that says nothing.

    Raises:
        BadConfig: tensorboard is not installed, or the folder cannot be written.
    """
    return _Nothing() if folder is None else _TensorBoard(folder)
