"""How much memory a graphical session holds: the resident memory of its processes, from /proc.

Resident memory counts shared pages with every process: the sum is an upper bound.
"""

from __future__ import annotations

import re

from hired_runtime.board.machine import Machine

# `comm` of the display servers, shells and login screens that Ubuntu's flavours start (cut at 15 characters by Linux).
PROCESSES = frozenset(
    {
        "Xorg",
        "Xwayland",
        "gnome-shell",
        "gdm3",
        "gdm-x-session",
        "gdm-wayland-ses",
        "lightdm",
        "lxsession",
        "unity-panel-ser",
    }
)
_RESIDENT = re.compile(r"^VmRSS:\s+(\d+) kB$", re.MULTILINE)


def memory(machine: Machine) -> int:
    """Bytes, 0 without a graphical session."""
    total = 0
    for name in machine.names("/proc"):
        if not name.isdigit() or (machine.text(f"/proc/{name}/comm") or "").strip() not in PROCESSES:
            continue
        resident = _RESIDENT.search(machine.text(f"/proc/{name}/status") or "")
        total += int(resident[1]) * 1024 if resident else 0
    return total
