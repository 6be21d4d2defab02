"""The cycle models against published silicon: is the order right, and how far off is the number?

    python tools/bench/cycle_check.py [ROWS.json]

Prints, for each published board, its cycles a network, and for the board whose engine runs the
kernels that were modelled the quotient published / modelled. With the `--json --all` rows of
mcu.py, also
where the M7 range lies as a share of the M4 estimate of the same code.
"""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

NETWORKS = ("ic", "vww", "kws", "ad")
_PUBLISHED = Path(__file__).with_name("published.toml")


def cycles(board: dict[str, Any]) -> dict[str, float]:
    """Latency in milliseconds times the clock."""
    return {name: board[name] / 1e3 * board["clock_hz"] for name in NETWORKS}


def by_size(figures: dict[str, float]) -> list[str]:
    return sorted(NETWORKS, key=lambda name: -figures[name])


def check(published: dict[str, Any]) -> list[str]:
    """A line a board."""
    modelled = published["modelled_m4_cycles"]
    expected = by_size(modelled)
    lines = [_line(f"M4 model, {modelled['engine']}", modelled)]
    for board in published["boards"]:
        found = cycles(board)
        order = "same order" if by_size(found) == expected else "ANOTHER ORDER"
        lines.append(_line(f"{board['name']} {board['engine']}", found) + f"   {order}")
        if board.get("kernels_of_the_model"):
            quotients = [f"{name} {found[name] / modelled[name]:.2f}" for name in NETWORKS]
            lines.append(f"  published / modelled: {', '.join(quotients)}")
    return lines


def m7_to_m4(published: dict[str, Any]) -> str:
    """What the same vendor's engine needs on the M7 for each cycle on the M4."""
    m4 = next(b for b in published["boards"] if b["engine"].startswith("X-CUBE-AI 10"))
    m7 = next(b for b in published["boards"] if b["core"] == "cortex-m7")
    shares = [f"{name} {cycles(m7)[name] / cycles(m4)[name]:.2f}" for name in NETWORKS]
    return f"M7 cycles for each M4 cycle, X-CUBE-AI: {', '.join(shares)}"


def m7_range(rows: list[dict[str, Any]]) -> list[str]:
    """The M7 model's range as shares of the M4 estimate of the same code."""
    return [
        f"M7 model for each M4 cycle, {row['model']}: {row['cycles']['low'] / row['m4_cycles']:.2f}"
        f" to {row['cycles']['high'] / row['m4_cycles']:.2f}"
        for row in rows
        if row["core"] == "cortex-m7"
    ]


def _line(name: str, figures: dict[str, float]) -> str:
    values = ", ".join(f"{network} {figures[network] / 1e6:.2f} M" for network in NETWORKS)
    return f"{name}: {values}"


def main(arguments: list[str]) -> int:
    published = tomllib.loads(_PUBLISHED.read_text(encoding="utf-8"))
    print("\n".join([*check(published), m7_to_m4(published)]))
    for path in arguments:
        print("\n".join(m7_range(json.loads(Path(path).read_text(encoding="utf-8")))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
