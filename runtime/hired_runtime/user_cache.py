"""Where what can be made again lies between runs: timing caches, logs, hashes. Never in a bundle."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """$HIRED_EDGE_CACHE, or `hired-edge` in $XDG_CACHE_HOME or ~/.cache. It may not exist.

    Raises:
        RuntimeError: none of them is known, and neither is the user's home.
    """
    own = os.environ.get("HIRED_EDGE_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hired-edge"
