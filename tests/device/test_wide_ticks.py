"""The 64-bit clock of 32-bit counters, run on this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

from edgecompress.link.toolchain import run_zig
from edgecompress.paths import shipped

_READS = (5, 0xFFFFFFFF, 0, 7, 7, 6)

_SOURCE = """
#include <stdio.h>
#include "wide_ticks.h"
int main(void) {{
  static const uint32_t counts[] = {{ {counts} }};
  for (unsigned index = 0; index < sizeof(counts) / sizeof(*counts); index++)
    printf("%llu\\n", (unsigned long long)wide_ticks(counts[index]));
  return 0;
}}
"""


def test_a_wrap_of_the_counter_is_counted(tmp_path: Path) -> None:
    counts = ", ".join(f"{count}u" for count in _READS)
    (tmp_path / "main.c").write_text(_SOURCE.format(counts=counts))
    headers = f"-I{shipped('runtimes') / 'core'}"
    run_zig(["cc", headers, "main.c", "-o", "wide"], folder=tmp_path, what="the clock")
    printed = subprocess.run([tmp_path / "wide"], capture_output=True, text=True, check=True)

    wrap = 1 << 32
    assert [int(line) for line in printed.stdout.split()] == [
        5, wrap - 1, wrap, wrap + 7, wrap + 7, 2 * wrap + 6,
    ]  # fmt: skip
