"""`python -m edgecompress` is the `edgecompress` command."""

from __future__ import annotations

import sys

from edgecompress.cli import main

if __name__ == "__main__":
    sys.exit(main())
