"""`nvidia-smi` -> a PC's NVIDIA GPUs, and the driver of either kind of machine.

On a Jetson it knows the driver and little else: name and compute capability come from the device tree there.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass

COMMAND = ("nvidia-smi", "--query-gpu=name,driver_version,compute_cap,memory.total", "--format=csv")
_BANNER = re.compile(r"Driver Version: (\S+)\s+CUDA Version: (\S+)")
_UNKNOWN = ("", "N/A", "[N/A]", "[Not Supported]", "[Unknown Error]")


@dataclass(frozen=True)
class Gpu:
    """One GPU; what the driver does not report is None. `memory` as nvidia-smi prints it ("24564 MiB")."""

    name: str
    driver: str | None
    capability: str | None
    memory: str | None


def parse_query(text: str) -> tuple[Gpu, ...]:
    """The table that `--format=csv` prints: its first line names the columns, in any order."""
    rows = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    if "name" not in (rows.fieldnames or ()):
        return ()
    return tuple(
        Gpu(
            name=row["name"],
            driver=_known(row.get("driver_version")),
            capability=_known(row.get("compute_cap")),
            memory=_known(row.get("memory.total [MiB]")),
        )
        for row in rows
    )


def parse_banner(text: str) -> tuple[str, str | None] | None:
    """The first lines of plain `nvidia-smi`: the driver and the newest CUDA that it serves (None where it says N/A)."""
    match = _BANNER.search(text)
    return None if match is None else (match[1], _known(match[2]))


def _known(value: str | None) -> str | None:
    return None if value is None or value.strip() in _UNKNOWN else value.strip()
