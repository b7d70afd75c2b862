"""One line of `tegrastats` -> a Sample. Every field may be missing; what is not understood is passed over.

Lines differ between JetPacks. The GPU's load is `0%`, `0%@306`, `0%@[306]` or, on a Thor, `@[0,0,0]` with no load at
all. Power is `now/average` in mW, with or without the unit, and from JetPack 7.2 `now/average/peak`; temperatures
become `now/peak` there. Source: NVIDIA's Developer Guide ("tegrastats Utility") and tests/device/recorded/.

It does not know what the numbers are worth: the power sensors' own averaging, for one, is not ours to see.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_RAM = re.compile(r"\bRAM (\d+)/(\d+)MB(?: \(lfb (\d+)x(\d+)(kB|MB)\))?")
_SWAP = re.compile(r"\bSWAP (\d+)/(\d+)MB")
_CPU = re.compile(r"\bCPU \[([^\]]*)\]")
_GPU = re.compile(r"\bGR3D_FREQ (\d+)%")
_TEMPERATURE = re.compile(r"\b([A-Za-z][A-Za-z0-9_]*)@(-?\d+(?:\.\d+)?)C\b")
_POWER = re.compile(r"\b([A-Z][A-Z0-9_]*) (-?\d+)(?:mW)?/(-?\d+)(?:mW)?(?:/-?\d+(?:mW)?)?(?=\s|$)")

NO_SENSOR_C = -256  # what a sensor in a domain without power reads


@dataclass(frozen=True)
class Sample:
    """One line of tegrastats.

    Attributes:
        time_s: `time.monotonic()` when the line was read.
        ram_used_mb, ram_total_mb, swap_used_mb: in MiB, None where the line has no such field (no swap: no SWAP field).
        gpu_percent: load of the GPU, 0 to 100; None where it is not reported (AGX Thor).
        temperatures_c: by sensor, as the board names them (`gpu`, `GPU`, `tj`); sensors without power left out.
        power_mw: momentary, by rail. The sensors of a Thor's idle GPU can read slightly below zero.
        average_power_mw: tegrastats' own average since it was started, by rail.
        cpu_percent: load of each core; None for a core that is off.
        free_block_mb: the largest block of contiguous free memory (`lfb`), at most 4 MiB by the allocator's nature.
    """

    time_s: float
    ram_used_mb: int | None = None
    ram_total_mb: int | None = None
    swap_used_mb: int | None = None
    gpu_percent: float | None = None
    temperatures_c: dict[str, float] = field(default_factory=dict)
    power_mw: dict[str, float] = field(default_factory=dict)
    average_power_mw: dict[str, float] = field(default_factory=dict)
    swap_total_mb: int | None = None
    cpu_percent: tuple[float | None, ...] = ()
    free_block_mb: float | None = None


def parse_line(line: str, time_s: float = 0.0) -> Sample | None:
    """A line read at `time_s`, or None if it is none of tegrastats' (it always reports RAM)."""
    ram = _RAM.search(line)
    if ram is None:
        return None
    swap, cpu, gpu = _SWAP.search(line), _CPU.search(line), _GPU.search(line)
    temperatures = {name: float(value) for name, value in _TEMPERATURE.findall(line)}
    powers = _POWER.findall(line)
    return Sample(
        time_s=time_s,
        ram_used_mb=int(ram[1]),
        ram_total_mb=int(ram[2]),
        swap_used_mb=int(swap[1]) if swap else None,
        swap_total_mb=int(swap[2]) if swap else None,
        gpu_percent=float(gpu[1]) if gpu else None,
        temperatures_c={name: value for name, value in temperatures.items() if value != NO_SENSOR_C},
        power_mw={name: float(now) for name, now, _ in powers},
        average_power_mw={name: float(average) for name, _, average in powers},
        cpu_percent=tuple(_load(core) for core in cpu[1].split(",")) if cpu else (),
        free_block_mb=None if ram[4] is None else int(ram[4]) / (1024 if ram[5] == "kB" else 1),
    )


def _load(core: str) -> float | None:
    percent, sign, _ = core.partition("%")
    return float(percent) if sign else None
