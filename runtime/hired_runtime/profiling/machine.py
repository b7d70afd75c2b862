"""The machine that something is measured on: processor, cores, memory, and what a Jetson says about itself."""

from __future__ import annotations

import os
import platform

from hired_runtime.board import machine as sources
from hired_runtime.board import meminfo, module, power_mode, release
from hired_runtime.profiling.schema import Board, Machine


def machine(source: sources.Machine | None = None) -> Machine:
    """What this machine says about itself now.

    Args:
        source: of files and commands; None = this machine's own.
    """
    source = source or sources.Machine()
    memory = meminfo.parse(source.text("/proc/meminfo") or "")
    return Machine(
        processor=_processor(source.text("/proc/cpuinfo") or "") or platform.processor() or platform.machine(),
        architecture=platform.machine(),
        system=_system(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=memory.total if memory is not None else 0,
        load_average=round(os.getloadavg()[0], 2),
        board=_board(source),
    )


def _processor(cpuinfo: str) -> str | None:
    """The first "model name", which Arm's kernels do not print."""
    rows = (line.partition(":") for line in cpuinfo.splitlines())
    return next((value.strip() for name, _, value in rows if name.strip() == "model name"), None)


def _system() -> str:
    """ "Ubuntu 22.04.5 LTS, Linux 5.15.148-tegra"."""
    kernel = f"{platform.system()} {platform.release()}"
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {kernel}"
    except OSError:
        return kernel


def _board(source: sources.Machine) -> Board | None:
    tree = [source.text(f"/proc/device-tree/{name}") or "" for name in ("compatible", "model")]
    board, l4t = module.parse(*tree), release.parse(source.text("/etc/nv_tegra_release") or "")
    if board is None and l4t is None:
        return None
    asked = source.command("nvpmodel", "-q")
    mode = None if asked is None else power_mode.parse_query(asked.text)
    return Board(
        model=None if board is None else board.name,
        l4t=None if l4t is None else l4t.l4t,
        power_mode=None if mode is None else mode.name,
    )
