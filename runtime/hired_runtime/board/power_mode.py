"""`nvpmodel -q` and /etc/nvpmodel.conf -> the power mode, and the fastest one that this board offers.

The number of a mode means nothing by itself: MAXN is 0 on an Orin NX and 2 on an Orin Nano with Super modes, and some
boards have none. Only the board's own table tells.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_QUERY = re.compile(r"NV Power Mode:\s*(\S+)(?:\s*\n\s*(\d+)\s*$)?", re.MULTILINE)
_ENTRY = re.compile(r"^<\s*POWER_MODEL\s+([^>]*)>", re.MULTILINE)
_WATTS = re.compile(r"(\d+)W")


@dataclass(frozen=True)
class PowerMode:
    """As `nvpmodel -q` reports it; `number` is None where it printed the name alone."""

    name: str
    number: int | None


def parse_query(text: str) -> PowerMode | None:
    match = _QUERY.search(text)
    return None if match is None else PowerMode(match[1], None if match[2] is None else int(match[2]))


def parse_table(text: str) -> dict[int, str]:
    """/etc/nvpmodel.conf -> names by number."""
    table = {}
    for entry in _ENTRY.findall(text):
        fields = dict(field.split("=", 1) for field in entry.split() if "=" in field)
        if {"ID", "NAME"} <= set(fields):
            table[int(fields["ID"])] = fields["NAME"]
    return table


def fastest(table: Mapping[int, str]) -> int | None:
    """The number of MAXN_SUPER, else of MAXN, else of the mode with the most watts in its name; None if none tells."""
    speeds = {number: _speed(name) for number, name in table.items()}
    return max((number for number, speed in speeds.items() if speed), key=speeds.__getitem__, default=None)


def _speed(name: str) -> int:
    """Higher is faster; 0 where the name does not tell."""
    if name.startswith("MAXN"):
        return 10**6 + name.endswith("SUPER")
    watts = _WATTS.search(name)
    return int(watts[1]) if watts else 0
