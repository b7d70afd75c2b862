"""Everything that `hired-edge doctor` reads from a machine, in one object. Nothing is judged here.

It does not run anything as root: what only root may read (the memory's clock) is missing for others.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hired_runtime.board import (
    clocks,
    desktop,
    meminfo,
    module,
    nvidia_smi,
    packages,
    power_mode,
    release,
    software,
    tegrastats_line,
)
from hired_runtime.board.machine import Machine, Output

OnStep = Callable[[str], None]


@dataclass(frozen=True)
class Readings:
    """What was found; None or empty where a machine has no such thing.

    Attributes:
        architecture: "aarch64" or "x86_64".
        system: the distribution's name and the kernel's release.
        python: version of this interpreter; `isolated` if it is a venv that hides the system's packages.
        environment: the venv's folder, or None outside one.
        cma_argument: `cma=` as the kernel was started with, None where it was not.
        desktop: bytes that a graphical session holds.
        sample: one line of tegrastats.
        driver: NVIDIA's driver, as nvidia-smi has it.
    """

    architecture: str = ""
    system: str = ""
    python: str = ""
    isolated: bool = False
    environment: str | None = None
    cma_argument: str | None = None
    release: release.Release | None = None
    module: module.Module | None = None
    power_mode: power_mode.PowerMode | None = None
    power_modes: dict[int, str] = field(default_factory=dict)
    clocks: tuple[clocks.Clock, ...] = ()
    memory: meminfo.Memory | None = None
    desktop: int = 0
    sample: tegrastats_line.Sample | None = None
    packages: dict[str, str] = field(default_factory=dict)
    gpus: tuple[nvidia_smi.Gpu, ...] = ()
    driver: str | None = None
    cuda: software.Cuda | None = None
    modules: dict[str, software.Module] = field(default_factory=dict)
    providers: dict[str, software.Provider] = field(default_factory=dict)

    @property
    def jetson(self) -> bool:
        return self.release is not None or self.module is not None


def read(machine: Machine, on_step: OnStep = lambda step: None) -> Readings:
    """Reads everything; `on_step` is called with what comes next where it may take a while."""
    isolated, environment = _environment()
    installed = packages.parse(_text(machine.command(*packages.COMMAND)))
    board = module.parse(
        machine.text("/proc/device-tree/compatible") or "", machine.text("/proc/device-tree/model") or ""
    )
    banner = nvidia_smi.parse_banner(_text(machine.command("nvidia-smi", timeout_s=20)))
    modules, providers = {}, {}
    for name in software.MODULES:
        on_step(name)
        modules[name] = software.module(machine, name)
    on_step("the CUDA driver")
    driver = software.cuda(machine)
    for name in software.PROVIDERS:
        on_step(name)
        providers[name] = software.provider(machine, name)
    return Readings(
        architecture=platform.machine(),
        system=_system(machine),
        python=platform.python_version(),
        isolated=isolated,
        environment=environment,
        cma_argument=_cma_argument(machine.text("/proc/cmdline") or ""),
        release=_release(machine, installed),
        module=board,
        power_mode=power_mode.parse_query(_text(machine.command("nvpmodel", "-q"))),
        power_modes=power_mode.parse_table(machine.text("/etc/nvpmodel.conf") or ""),
        clocks=_clocks(machine),
        memory=meminfo.parse(machine.text("/proc/meminfo") or ""),
        desktop=desktop.memory(machine),
        sample=_sample(machine),
        packages=installed,
        gpus=() if board else nvidia_smi.parse_query(_text(machine.command(*nvidia_smi.COMMAND, timeout_s=20))),
        driver=None if banner is None else banner[0],
        cuda=driver,
        modules={name: found for name, found in modules.items() if found is not None},
        providers={name: found for name, found in providers.items() if found is not None},
    )


def _text(output: Output | None) -> str:
    return "" if output is None else output.text


def _release(machine: Machine, installed: dict[str, str]) -> release.Release | None:
    """From the file; in a container without it, from the package that a base image for Jetson has."""
    found = release.parse(machine.text("/etc/nv_tegra_release") or "")
    core = installed.get("nvidia-l4t-core")
    return release.release(core) if found is None and core is not None else found


def _system(machine: Machine) -> str:
    rows = (machine.text("/etc/os-release") or "").splitlines()
    name = next((row.partition("=")[2].strip('"') for row in rows if row.startswith("PRETTY_NAME=")), "")
    kernel = (machine.text("/proc/sys/kernel/osrelease") or "").strip()
    return ", ".join(part for part in (name, f"Linux {kernel}" if kernel else "") if part)


def _cma_argument(arguments: str) -> str | None:
    return next((word for word in arguments.split() if word.startswith("cma=")), None)


def _clocks(machine: Machine) -> tuple[clocks.Clock, ...]:
    if os.geteuid() == 0:
        shown = clocks.parse_show(_text(machine.command("jetson_clocks", "--show")))
        if shown:
            return shown
    return clocks.read(machine)


def _sample(machine: Machine) -> tegrastats_line.Sample | None:
    """The last line of a second of tegrastats, which never ends by itself."""
    lines = _text(machine.command("tegrastats", "--interval", "200", timeout_s=1)).splitlines()
    samples = [sample for line in lines if (sample := tegrastats_line.parse_line(line)) is not None]
    return samples[-1] if samples else None


def _environment() -> tuple[bool, str | None]:
    """Whether this interpreter's venv hides the system's packages, and its folder; (False, None) outside a venv."""
    if sys.prefix == sys.base_prefix:
        return False, None
    try:
        settings = (Path(sys.prefix) / "pyvenv.cfg").read_text()
    except OSError:
        return False, sys.prefix
    return "include-system-site-packages = true" not in settings.lower(), sys.prefix
