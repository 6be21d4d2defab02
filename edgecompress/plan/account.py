"""What a whole candidate takes: the compiler's word where there is one, else the table's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecompress.model.trainable import Trainable
from edgecompress.plan.cost import Corrections, predict
from edgecompress.plan.preview import preview
from edgecompress.records import Budget, Optimize, Prediction, SizeReport, WeightStorage
from edgecompress.target.schema import DeviceProfile


@dataclass(frozen=True)
class Account:
    """Predictions by the compiler itself; by the table alone where no budget needs better."""

    profile: DeviceProfile
    budget: Budget
    x: np.ndarray
    corrections: Corrections
    optimize: Optimize

    def of(
        self, trainable: Trainable, weights: dict[str, WeightStorage] | None = None
    ) -> Prediction:
        if self.profile.kind != "mcu":
            return predict(trainable, self.profile, self.corrections)
        return preview(
            trainable, self.x, self.profile, self.corrections, self.optimize,
            self.budget.ram_bytes, weights, self.budget.flash_bytes,
        )  # fmt: skip


def as_report(prediction: Prediction) -> SizeReport:
    """A prediction in the form `cost.corrections_from` compares with."""
    return SizeReport(flash_sections=prediction.flash_parts, ram_parts=prediction.ram_parts)
