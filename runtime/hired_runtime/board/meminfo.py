"""/proc/meminfo -> memory, contiguous memory (CMA) and swap, in bytes.

A Jetson's GPU shares this memory. `cma_free` says little: movable pages that lie in the reserve are moved away when a
driver asks. What counts is how large it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_ROW = re.compile(r"^(\w+(?:\(\w+\))?):\s+(\d+)(?: kB)?$", re.MULTILINE)


@dataclass(frozen=True)
class Memory:
    """Bytes. `available` is the kernel's estimate of what can be had without swapping, caches included."""

    total: int
    available: int
    swap_total: int
    swap_free: int
    cma_total: int
    cma_free: int


def parse(text: str) -> Memory | None:
    """A field that the kernel does not report counts as 0; None if not even the total is there."""
    rows = {name: int(value) * 1024 for name, value in _ROW.findall(text)}
    if "MemTotal" not in rows:
        return None
    return Memory(
        total=rows["MemTotal"],
        available=rows.get("MemAvailable", rows.get("MemFree", 0)),
        swap_total=rows.get("SwapTotal", 0),
        swap_free=rows.get("SwapFree", 0),
        cma_total=rows.get("CmaTotal", 0),
        cma_free=rows.get("CmaFree", 0),
    )
