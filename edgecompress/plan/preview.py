"""The real compiler asked in advance: a model's exact account before it is trained or linked.

The code table of `code_size` knows TIR kernels; which of an instruction set's own kernels a layer
gets, how much scratch they take and what may lie over what only the compiler knows. It takes
seconds, so the search asks it about whole candidates, not about every width.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgecompress.compress.quantize import quantize
from edgecompress.link.library_sizes import library_sizes
from edgecompress.lower.passes.choice import Goal
from edgecompress.lower.passes.flash_limit import within_flash
from edgecompress.lower.passes.patch import patch_to_fit
from edgecompress.lower.passes.specialize import Offers
from edgecompress.lower.pipeline import lower
from edgecompress.model.trainable import Trainable
from edgecompress.plan.program_cost import Corrections, predict_program
from edgecompress.records import Optimize, Prediction, WeightStorage
from edgecompress.target.schema import DeviceProfile

_CALIBRATION_SAMPLES, _FEWEST_SAMPLES, _SMALL_MODEL = 96, 8, 100_000
"""Scales decide a few sizes: layers whose multipliers lie far apart share no depthwise routine.
Beside more weights than a small model's a routine is little, and samples take longer: fewer do."""


def preview(
    trainable: Trainable,
    x: np.ndarray,
    profile: DeviceProfile,
    corrections: Corrections | None = None,
    optimize: Optimize = "balanced",
    ram_limit_bytes: int | None = None,
    weights: Mapping[str, WeightStorage] | None = None,
    flash_limit_bytes: int | None = None,
) -> Prediction:
    """What the image of this very model will use, compiled as far as objects.

    Args:
        x: [N, ...] float32 samples; a few of them calibrate.
        corrections: from an image already linked, relative to such a preview.
        ram_limit_bytes: what the image may use of RAM in all; layers are cut into stripes where it
            takes that. None for what the device has.
        weights: layer -> storage; dense int8 where it is not named.
        flash_limit_bytes: what the image may use of flash; codecs take over where it takes that.

    Raises:
        BuildFailed: the compiler refused the model.
    """
    deployable = quantize(trainable, x[: _samples(trainable)], name="preview", weights=weights)
    program = lower(deployable, name="preview", profile=profile)
    offers = Offers(profile)

    def attempt(goal: Goal) -> tuple[Prediction, int]:
        image = patch_to_fit(program, profile, ram_limit_bytes, goal, offers).image_program
        found = predict_program(image, profile, library_sizes(image, profile), corrections)
        return found, 0 if flash_limit_bytes is None else found.flash_bytes - flash_limit_bytes

    return within_flash(program, optimize, attempt)


def _samples(trainable: Trainable) -> int:
    parameters = sum(parameter.numel() for parameter in trainable.graph.parameters())
    share = min(1.0, _SMALL_MODEL / max(1, parameters))
    return max(_FEWEST_SAMPLES, round(share * _CALIBRATION_SAMPLES))
