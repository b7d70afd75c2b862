"""/etc/nv_tegra_release -> the release of Jetson Linux (L4T) -> the JetPack that brought it.

Source of the table: NVIDIA's JetPack archive (developer.nvidia.com/embedded/jetpack-archive), as rbonghi/jetson_stats
keeps it (jtop/core/jetson_variables.py, commit f41d5ca); 39.2.1 from OE4T/meta-tegra pull request 2339. A JetPack can
be upgraded in parts by apt, so that it says little about single packages: those are read for themselves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_RELEASE = re.compile(r"#\s*R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)")

JETPACKS = {
    "39.2.1": "7.2.1",
    "39.2.0": "7.2",
    "39.0.0": "7.2 EA",
    "38.4.0": "7.1",
    "38.2.2": "7.0",
    "38.2.1": "7.0",
    "38.2.0": "7.0",
    "36.5.0": "6.2.2",
    "36.4.7": "6.2.1",
    "36.4.4": "6.2.1",
    "36.4.3": "6.2",
    "36.4.2": "6.1",
    "36.4.0": "6.1",
    "36.3.0": "6.0",
    "36.2.0": "6.0 DP",
    "35.6.4": "5.1.6",
    "35.6.3": "5.1.5",
    "35.6.2": "5.1.5",
    "35.6.1": "5.1.5",
    "35.6.0": "5.1.4",
    "35.5.0": "5.1.3",
    "35.4.1": "5.1.2",
    "35.3.1": "5.1.1",
    "35.2.1": "5.1",
    "35.1.0": "5.0.2",
}


@dataclass(frozen=True)
class Release:
    """A release of Jetson Linux: `l4t` as "36.4.4"; `jetpack` as "6.2.1", None where the table has no such release."""

    l4t: str
    jetpack: str | None

    @property
    def major(self) -> int:
        """36 for JetPack 6; 38 for 7.0 and 7.1; 39 for 7.2."""
        return int(self.l4t.partition(".")[0])


def parse(text: str) -> Release | None:
    """The first line of /etc/nv_tegra_release; None if it is none."""
    match = _RELEASE.search(text)
    return None if match is None else release(f"{match[1]}.{match[2]}")


def release(l4t: str) -> Release:
    """Of "36.4.4", or of a package's version ("36.4.4-20250616085344")."""
    number = l4t.partition("-")[0]
    parts = number.split(".")
    return Release(number, JETPACKS.get(".".join([*parts, "0", "0"][:3])))
