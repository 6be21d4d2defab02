"""Results the report tests render: every field a real run fills, with round numbers."""

from __future__ import annotations

from edgecompress.records import (
    Accuracy,
    Budget,
    FlashUse,
    LowRank,
    Plan,
    Prediction,
    RamUse,
    Result,
    TimeEstimate,
    Verification,
)

KIB = 1024


def make_plan(**changes: object) -> Plan:
    fields: dict[str, object] = {
        "model_hash": "a" * 64,
        "data_hash": "b" * 64,
        "target": "cortex-m7",
        "budget": Budget(flash_bytes=1024 * KIB, ram_bytes=320 * KIB),
        "seed": 0,
        "effort": "fast",
        "widths": {"stage3.conv1": 96, "stage3.conv2": 104},
        "low_rank": {"head": LowRank(method="svd", ranks=(8,))},
        "finetune_steps": 120,
        "calibration_samples": 256,
        "predicted": Prediction(
            flash_bytes=900 * KIB,
            ram_bytes=300 * KIB,
            flash_parts={"weights": 850 * KIB, "kernels": 50 * KIB},
            ram_parts={"arena": 298 * KIB, "stack": 2 * KIB},
            peak_step="stage1.add",
            macs=41_000_000,
        ),
    }
    return Plan(**{**fields, **changes})  # type: ignore[arg-type]


def make_result(**changes: object) -> Result:
    fields: dict[str, object] = {
        "command": "fit",
        "model": "demo",
        "target": "cortex-m7",
        "fits": True,
        "accuracy": Accuracy(
            source=91.5,
            deployed=91.1,
            device=90.0,
            samples={"source": 1000, "deployed": 1000, "device": 20},
        ),
        "flash": FlashUse(
            used_bytes=909 * KIB,
            budget_bytes=1024 * KIB,
            predicted_bytes=900 * KIB,
            sections={"weights": 850 * KIB, "kernels": 55 * KIB, "runtime": 4 * KIB, "data": 0},
        ),
        "ram": RamUse(
            used_bytes=300 * KIB,
            budget_bytes=320 * KIB,
            predicted_bytes=300 * KIB,
            parts={"arena": 298 * KIB, "scratch": 0, "io": KIB, "stack": KIB},
        ),
        "instructions": 32_612_345,
        "macs": 41_000_000,
        "device": "virtual cortex-m7",
        "label": "emulated instructions",
        "time_estimate": TimeEstimate(
            low_us=90_000, high_us=151_000, clock_hz=216_000_000, source="a published ratio"
        ),
        "verified": Verification(
            exact=True, layers=31, samples=3, sides=("numpy twin", "host", "device")
        ),
        "plan": make_plan(),
        "seconds": {"Plan": 100.0, "Link": 20.0},
    }
    return Result(**{**fields, **changes})  # type: ignore[arg-type]
