"""`python -m hired_edge` is the `hired-edge` command."""

from __future__ import annotations

import sys

from hired_edge.cli import main

if __name__ == "__main__":
    sys.exit(main())
