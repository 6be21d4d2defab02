"""The planner bench's rows as text: means over the seeds, and planned against its rivals."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np


def table(rows: list[dict[str, Any]]) -> str:
    """Means and spreads (largest less smallest) over the seeds, a line a method."""
    cells: dict[tuple, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        key = ("effort", "dataset", "model", "budget", "method")
        cells[tuple(row[k] for k in key)].append(row)
    lines = [f"{'effort':9}{'data':8}{'model':11}{'budget':8}{'method':13}{'top-1 %':>8}"
             f"{'spread':>7}{'flash':>8}{'RAM':>8}{'MACs':>9}{'CPU s':>7} fits seeds"]  # fmt: skip
    for (effort, dataset, model, budget, method), found in sorted(cells.items()):
        values = [row["accuracy"] for row in found]
        flash, ram, macs, seconds = (
            np.mean([row[k] for row in found])
            for k in ("flash_bytes", "ram_bytes", "macs", "seconds")
        )
        fits = all(row["fits"] for row in found)
        lines.append(
            f"{effort:9}{dataset:8}{model:11}{budget:8}{method:13}{np.mean(values):8.2f}"
            f"{max(values) - min(values):7.2f}{flash:8.0f}{ram:8.0f}{macs / 1e6:8.2f}M"
            f"{seconds:7.0f} {'yes ' if fits else 'NO  '} {len(found)}"
        )
    return "\n".join(lines)


def paired(rows: list[dict[str, Any]]) -> str:
    """Planned less each rival, seed by seed: mean, smallest and largest difference, a line a
    budget, and what planned saves of the rival's flash and RAM."""
    key = ("dataset", "model", "budget", "seed", "effort")
    planned = {tuple(r[k] for k in key): r for r in rows if r["method"] == "planned"}
    whole = {tuple(r[k] for k in key if k != "budget"): r for r in rows if r["budget"] == "none"}
    found: dict[tuple, list[tuple[float, float, float]]] = defaultdict(list)
    for row in rows:
        one = tuple(row[k] for k in key)
        pairs = [(one, row)] if row["method"].startswith("uniform") else []
        if row["method"] == "planned":
            rival = whole.get((one[0], one[1], one[3], one[4]))
            pairs += [] if rival is None else [(one, rival)]
        for ours, rival in pairs:
            if ours not in planned:
                continue
            mine = planned[ours]
            difference = mine["accuracy"] - rival["accuracy"]
            saved = [1 - mine[k] / rival[k] for k in ("flash_bytes", "ram_bytes")]
            for label in (f"{ours[0]} {ours[1]}", "all"):
                found[ours[4], ours[2], rival["method"], label].append((difference, *saved))
    lines = [f"{'effort':9}{'budget':8}{'planned less':14}{'data':18}{'mean':>7}{'least':>7}"
             f"{'most':>7}{'flash':>8}{'RAM':>7} pairs"]  # fmt: skip
    for (effort, budget, rival, label), values in sorted(found.items()):
        points, flash, ram = np.array(values).T
        lines.append(
            f"{effort:9}{budget:8}{rival:14}{label:18}{points.mean():+7.2f}{points.min():+7.2f}"
            f"{points.max():+7.2f}{-100 * flash.mean():+7.0f}%{-100 * ram.mean():+6.0f}% "
            f"{len(values)}"
        )
    return "\n".join(lines)
