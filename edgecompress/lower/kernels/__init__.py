"""The integer kernels, one operator a file. The list below is the order matchers are asked in."""

from __future__ import annotations

from edgecompress.lower.kernels.interface import Matcher

MATCHERS: list[Matcher] = []
