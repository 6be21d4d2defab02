"""How the plan was found: the candidates, what each stage cost, where the model is sensitive."""

from __future__ import annotations

from rich.table import Table

from edgecompress.records import ParetoPoint, Result, StageScore
from edgecompress.units import format_bytes, format_count

_STAGES = {
    "source": "source model",
    "prune": "pruned",
    "factor": "factorized",
    "round": "weights rounded",
    "fine-tune": "fine-tuned",
    "student": "student, trained",
    "quantize": "quantized, as deployed",
}
_LISTED = 3


def search_tables(result: Result) -> list[Table]:
    """The tables there is something to say in."""
    tables = []
    if len(result.front) > 1:
        tables.append(front_table(result.front))
    if result.ledger:
        tables.append(ledger_table(result.ledger, result.objective))
    return tables


def front_table(front: tuple[ParetoPoint, ...]) -> Table:
    """A line a judged candidate; those no other beats in score, flash, RAM and MACs have a star."""
    table = _table(f"Candidates, {front[0].steps} steps")
    for heading in (_score_heading(front[0].metric), "flash", "RAM", "MACs", "* unbeaten"):
        table.add_column(heading, justify="right")
    for point in front:
        marks = [*(["chosen"] if point.chosen else []), *(["*"] if point.on_front else [])]
        table.add_row(
            f"  {point.name}", _score(point.value, point.divergence),
            format_bytes(point.flash_bytes), format_bytes(point.ram_bytes),
            format_count(point.macs), " ".join(marks),
        )  # fmt: skip
    return table


def ledger_table(ledger: tuple[StageScore, ...], objective: str) -> Table:
    """The validation score after each stage and its change."""
    table = _table("Stages, on validation")
    scored = ledger[0].value is not None
    for heading in ("score" if scored else "divergence", "change"):
        table.add_column(heading, justify="right", min_width=9)
    table.add_column(objective if not scored else "", overflow="fold")
    before = None
    for stage in ledger:
        now = stage.value if stage.value is not None else stage.divergence
        change = "" if before is None else f"{now - before:+.2f}" if scored else ""
        name = f"  {_STAGES[stage.stage]}"
        table.add_row(name, _score(stage.value, stage.divergence), change, "")
        before = now
    return table


def sensitive_layers(result: Result) -> str:
    """The dearest single changes, in words; empty where nothing was measured."""
    named = [f"{item.layer} ({item.change})" for item in result.sensitivity[:_LISTED]]
    return ", ".join(named)


def _table(title: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column(title, min_width=20)
    return table


def _score_heading(metric: str) -> str:
    return metric if len(metric) <= 20 else "divergence" if "divergence" in metric else "metric"


def _score(value: float | None, divergence: float) -> str:
    return f"{divergence:.4f}" if value is None else f"{value:.2f}"
