"""Calibration, training and test data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Dataset:
    """x: [N, ...] float32; y: [N] int64 labels or None."""

    x: np.ndarray
    y: np.ndarray | None


@dataclass(frozen=True)
class Splits:
    train: Dataset
    validation: Dataset
    test: Dataset
    hash: str
    name: str
