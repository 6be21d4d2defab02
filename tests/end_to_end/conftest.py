from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgecompress.plan import schedule

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module", autouse=True)
def _light_models_train_shorter() -> Iterator[None]:
    """Promises about runs hold whatever the steps; the demo is heavy and keeps its own."""
    fast = schedule._SCHEDULES["fast"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(schedule._SCHEDULES, "fast", replace(fast, most_final_steps=600))
        yield
