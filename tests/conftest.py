"""Fixtures every room shares."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

# Started in the background by a shell, the suite inherits an ignored Ctrl-C, and so would every
# program the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

_REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Optional benchmark data: $EDGECOMPRESS_DATA, or `shared/data` beside the checkout."""
    given = os.environ.get("EDGECOMPRESS_DATA")
    folder = Path(given) if given else _REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("benchmark data is not here (set EDGECOMPRESS_DATA to its folder)")
    return folder
