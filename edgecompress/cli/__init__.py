"""The command line: parses, calls `edgecompress.api`, prints.

Exit codes: 0 fits, 1 does not fit, 2 bad input, 3 device trouble, 70 a bug in this tool,
130 interrupted (Ctrl-C), 143 terminated (SIGTERM).
"""

from __future__ import annotations

from edgecompress.cli.app import main

__all__ = ["main"]
