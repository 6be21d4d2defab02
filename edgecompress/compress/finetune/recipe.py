"""How a fine-tune runs; the defaults were chosen by measurement on the demo."""

from __future__ import annotations

from dataclasses import dataclass

from edgecompress.errors import BadConfig

_RATE, _LEAST_RATE = 3e-3, 2e-4


@dataclass(frozen=True)
class Recipe:
    """Settings of `distill`.

    Attributes:
        learning_rate: Adam's, at the end of the warm-up. None goes by how much there is to win
            back: 3e-3 times the root of the share of validation inputs on which the student
            disagrees with its teacher, 2e-4 at least.
        batch_size: samples a step; smaller data sets give smaller batches.
        temperature: of the distillation loss, above 0.
        label_share: weight of the true answers beside the teacher's, 0 to 1. Without labels the
            teacher is followed alone, whatever this says.
        checks: how often the validation split is looked at; the best state is kept.
        patience: checks without improvement after which training ends; None runs all steps.
        feature_share: weight of feature distillation beside the loss, 0 for none. It runs the
            teacher in every step.
        float_share: of a quantization-aware run, the part before BatchNorm is folded and
            activations are rounded too. Without BatchNorm a step of Adam is large for channels
            with small weights, so that part comes when the learning rate is low.
        shift_pixels: images are moved by up to so many pixels each way, which must change no
            answer. This and `mirror` run the teacher in every step.
        mirror: images are turned left to right every second time; likewise.
        quantization_aware: train for rounding even where all weights are plain int8.
    """

    learning_rate: float | None = None
    batch_size: int = 64
    temperature: float = 4.0
    label_share: float = 0.3
    checks: int = 5
    patience: int | None = None
    feature_share: float = 0.0
    float_share: float = 0.8
    shift_pixels: int = 0
    mirror: bool = False
    quantization_aware: bool = False

    def rate_for(self, disagreement: float) -> float:
        """The learning rate for a student that disagrees with its teacher on such a share."""
        if self.learning_rate is not None:
            return self.learning_rate
        return max(_LEAST_RATE, _RATE * min(1.0, disagreement) ** 0.5)

    def __post_init__(self) -> None:
        for name, low, high in (
            ("learning_rate", 1e-9, 1e3),
            ("batch_size", 1, 1_000_000),
            ("temperature", 1e-3, 1e3),
            ("label_share", 0, 1),
            ("checks", 1, 1_000_000),
            ("feature_share", 0, 1e6),
            ("float_share", 0, 1),
            ("shift_pixels", 0, 1_000_000),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise BadConfig(f"{name} is {value}; it must lie within {low:g} to {high:g}.")
        if self.patience is not None and self.patience < 1:
            raise BadConfig(f"patience is {self.patience}; it must be at least 1 check.")
