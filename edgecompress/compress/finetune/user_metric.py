"""A measure of the user's own, its failures in one line."""

from __future__ import annotations

import numpy as np

from edgecompress.compress.finetune.judge import Metric
from edgecompress.errors import BadInput
from edgecompress.model.symbols import find_symbol


def user_metric(spec: str) -> Metric:
    """The function "pkg.mod:callable" names: (outputs [N, ...] float32, labels or None) -> float.

    Raises:
        BadInput: there is no such function; or, when it is called, it fails or returns anything
            but a finite number.
    """
    function = find_symbol(spec)

    def measured(outputs: np.ndarray, labels: np.ndarray | None) -> float:
        try:
            found = float(function(outputs, labels))
        except Exception as error:
            raise BadInput(
                f"The metric '{spec}' failed: {type(error).__name__}: {error}.",
                next_step="It takes (outputs [N, ...], labels or None) and returns a number.",
            ) from error
        if not np.isfinite(found):
            raise BadInput(
                f"The metric '{spec}' returned {found} for the model's outputs.",
                next_step="Return a finite number for any outputs; larger is better.",
            )
        return found

    return measured
