"""Clocks of the GPU, the CPUs and the memory: from sysfs, which anyone may read, or `jetson_clocks --show` (root).

`sudo jetson_clocks` sets each minimum to the maximum of the power mode, until the next boot. The memory's clock (EMC)
is not in sysfs: without root it stays unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hired_runtime.board.machine import Machine

_ROW = re.compile(r"^(cpu\d+|GPU|EMC):?\s+(.*\bMinFreq=.*)$", re.MULTILINE)
_DEVFREQ = "/sys/class/devfreq"
_CPUFREQ = "/sys/devices/system/cpu/cpufreq"
# 17000000.gpu on Orin, 17000000.ga10b before JetPack 6, gpu-gpc-0 on Thor.
_GPU = re.compile(r"\.gpu$|\.ga10b$|\.gv11b$|^gpu-gpc-\d+$")


@dataclass(frozen=True)
class Clock:
    """One clock: what it belongs to (`gpu`, `cpu0`, `emc`), its limits and its rate now, in MHz.

    `held` is whether it is kept at its highest rate.
    """

    name: str
    minimum_mhz: float
    maximum_mhz: float
    current_mhz: float
    held: bool


def parse_show(text: str) -> tuple[Clock, ...]:
    """`jetson_clocks --show`; CPUs that are off are left out."""
    clocks = []
    for name, row in _ROW.findall(text):
        fields = dict(field.split("=", 1) for field in row.split() if "=" in field)
        if fields.get("Online") == "0":
            continue
        per_mhz = 1e3 if name.startswith("cpu") else 1e6  # CPUs are in kHz, as cpufreq has them, the others in Hz
        low, high, now = (float(fields[key]) / per_mhz for key in ("MinFreq", "MaxFreq", "CurrentFreq"))
        held = fields["FreqOverride"] == "1" if "FreqOverride" in fields else low == high
        clocks.append(Clock(name.lower(), low, high, now, held))
    return tuple(clocks)


def read(machine: Machine) -> tuple[Clock, ...]:
    """What sysfs shows: GPU and CPUs."""
    folders = [(f"{_DEVFREQ}/{name}", "gpu", 1e6, "") for name in machine.names(_DEVFREQ) if _GPU.search(name)]
    policies = [name for name in machine.names(_CPUFREQ) if name.startswith("policy")]
    folders += [(f"{_CPUFREQ}/{name}", name.replace("policy", "cpu"), 1e3, "scaling_") for name in policies]
    return tuple(clock for folder in folders if (clock := _clock(machine, *folder)) is not None)


def _clock(machine: Machine, folder: str, name: str, per_mhz: float, prefix: str) -> Clock | None:
    texts = [machine.text(f"{folder}/{prefix}{key}_freq") for key in ("min", "max", "cur")]
    if any(text is None or not text.strip().isdigit() for text in texts):
        return None
    low, high, now = (float(text or 0) / per_mhz for text in texts)
    return Clock(name, low, high, now, held=low == high)
