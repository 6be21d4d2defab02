"""Time of one inference: predicted before there is an image, corrected by one that ran.

predicted   (MACs x instructions a MAC + decoding) x the core's most cycles an instruction
correction  time of a linked image over what was predicted for it; the next plan is held to it
"""

from __future__ import annotations

from collections.abc import Mapping

from edgecompress.plan.code_size import code_table
from edgecompress.records import Prediction
from edgecompress.target.schema import DeviceProfile

TIME = "latency.time"
"""Among the corrections: time of an image over its prediction."""
DECODING = "latency.decoding"
"""Among the corrections: instructions of decoding as compiled over those of the table."""


def predicted_us(predicted: Prediction, profile: DeviceProfile) -> float | None:
    """Uncorrected; None where the target gives no cycles an instruction."""
    core = profile.core
    if core.cycles_per_instruction is None:
        return None
    instructions = predicted.macs * code_table(profile).instructions_per_mac
    instructions += predicted.decoding_instructions
    return instructions * core.cycles_per_instruction[1] / core.clock_hz * 1e6


def time_correction(corrections: Mapping[str, float] | None) -> dict[str, float]:
    """What an image taught about time, for corrections that are otherwise made anew."""
    return {name: factor for name, factor in (corrections or {}).items() if name == TIME}
