"""What readings mean: a finding each, with the command that mends it. One small function a question.

A `problem` is what keeps hired-edge from running as this machine could; a `warning` costs speed or may fail a build.
Nothing here reads a machine, and nothing is mended by it.

Sources: NVIDIA's Jetson Linux Developer Guide, "Platform Power and Performance" (nvpmodel, jetson_clocks) and "Kernel
Customization" (extlinux.conf); the JetPack release notes for which module a JetPack supports and which TensorRT it
brings.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Literal

from hired_edge.engines import DISTRIBUTIONS
from hired_runtime.board import module, packages, power_mode
from hired_runtime.board.rails import board_power_mw, counted
from hired_runtime.board.readings import Readings
from hired_runtime.board.software import Module

Level = Literal["ok", "warning", "problem"]
MIB, GIB = 2**20, 2**30

# The builder of TensorRT 10.3 wants about 1.5 times the largest weight in one piece. LLaVA-7B's fp16 head has
# 32000 x 4096 values: 250 MiB, so 375 MiB; Jetson Linux 36 reserves 256 MiB.
HEAD_BYTES = 32000 * 4096 * 2
CMA_WANTED = 3 * HEAD_BYTES // 2
CMA_ARGUMENT = "cma=512M"

# Less than this part of a Jetson's memory free: something else holds it.
FREE_WANTED = 0.6

OLDEST_L4T, THOR_ONLY_L4T = 36, 38


@dataclass(frozen=True)
class Finding:
    """What was found about `name`; `fix` is a command, or words where no command mends it; None if all is well."""

    name: str
    found: str
    level: Level = "ok"
    fix: str | None = None


def machine(it: Readings) -> Finding:
    """Which machine this is."""
    if it.module is not None:
        details = (it.module.part, it.module.soc, it.module.capability and f"SM {it.module.capability}")
        return Finding("machine", f"{it.module.name} ({', '.join(filter(None, details))}); {it.system}")
    if it.jetson:
        return Finding("machine", f"a Jetson whose module is not known; {it.system}")
    devices = it.gpus or (it.cuda.devices if it.cuda else ())
    gpus = ", ".join(f"{gpu.name} (SM {gpu.capability or 'unknown'})" for gpu in devices) or "no NVIDIA GPU"
    return Finding("machine", f"no Jetson, {it.architecture}; {gpus}; {it.system}")


def jetpack(it: Readings) -> Finding | None:
    """Is this JetPack one that the module can have, and that hired-edge runs on?"""
    if it.release is None:
        missing = "a Jetson without /etc/nv_tegra_release; in a container, start it with --runtime nvidia"
        return Finding("JetPack", missing, "warning", "run doctor on the board itself") if it.jetson else None
    release = it.release
    found = f"JetPack {release.jetpack or 'of an unknown number'} (L4T {release.l4t})"
    if release.major < OLDEST_L4T:
        return Finding(
            "JetPack", f"{found} is too old: its TensorRT has no INT4", "problem", "flash JetPack 6.2 or 7.2"
        )
    if release.major == THOR_ONLY_L4T and it.module is not None and it.module.soc == module.ORIN:
        impossible = f"{found} on {it.module.name}: JetPack 7.0 and 7.1 are for Thor alone"
        return Finding("JetPack", impossible, "problem", "flash JetPack 7.2 (L4T 39.2) or 6.2 (L4T 36.4)")
    return Finding("JetPack", found)


def power(it: Readings) -> Finding | None:
    """Is the fastest power mode of this board's own table on?"""
    if it.power_mode is None:
        return None
    mode = it.power_mode
    found = mode.name if mode.number is None else f"{mode.name} ({mode.number})"
    best = power_mode.fastest(it.power_modes)
    if best is None:
        if mode.name.startswith("MAXN"):
            return Finding("power mode", found)
        fix = "grep POWER_MODEL /etc/nvpmodel.conf; then sudo nvpmodel -m with the number of MAXN"
        return Finding("power mode", f"{found}; this board's table of modes is not to be read", "warning", fix)
    fastest = it.power_modes[best]
    if fastest == mode.name:
        return Finding("power mode", f"{found}, the fastest of {len(it.power_modes)}")
    return Finding("power mode", f"{found}; the fastest is {fastest}", "warning", f"sudo nvpmodel -m {best}")


def clocks(it: Readings) -> Finding | None:
    """Are the clocks held at their highest rate, so that measurements repeat?"""
    if not it.jetson or not it.clocks:
        return None
    free = [clock for clock in it.clocks if not clock.held]
    if not free:
        return Finding("clocks", f"held: {it.clocks[0].name} at {it.clocks[0].maximum_mhz:.0f} MHz, and the others")
    moving = ", ".join(f"{clock.name} {clock.minimum_mhz:.0f}-{clock.maximum_mhz:.0f} MHz" for clock in free[:3])
    more = f" and {len(free) - 3} more" if len(free) > 3 else ""
    return Finding("clocks", f"not held: {moving}{more}", "warning", "sudo jetson_clocks")


def memory(it: Readings) -> Finding | None:
    """Is there memory? A Jetson's GPU lives in it."""
    if it.memory is None:
        return None
    found = f"{it.memory.available / GIB:.1f} of {it.memory.total / GIB:.1f} GiB available"
    if it.jetson and it.memory.available < FREE_WANTED * it.memory.total:
        return Finding("memory", found, "warning", "ps -eo rss,comm --sort=-rss | head; and stop what is not needed")
    return Finding("memory", found)


def desktop(it: Readings) -> Finding | None:
    """Does a graphical session hold memory that the model could have?"""
    if not it.jetson or not it.desktop:
        return None
    found = f"a graphical session holds up to {it.desktop / MIB:.0f} MiB"
    fix = "sudo systemctl isolate multi-user.target; for good: sudo systemctl set-default multi-user.target"
    return Finding("desktop", found, "warning", fix)


def contiguous(it: Readings) -> Finding | None:
    """JetPack 6: can TensorRT's builder have a large head's tactics in one piece?"""
    if it.memory is None or it.release is None or it.release.major != OLDEST_L4T:
        return None
    reserved = it.memory.cma_total
    found = f"{reserved / MIB:.0f} MiB reserved (CMA)"
    if it.sample is not None and it.sample.free_block_mb is not None:
        found += f", largest free block elsewhere {it.sample.free_block_mb:g} MiB"
    if reserved >= CMA_WANTED:
        return Finding("contiguous memory", found)
    found += f"; building an fp16 LM head of {HEAD_BYTES / MIB:.0f} MiB takes {CMA_WANTED / MIB:.0f}"
    change = f"s/{it.cma_argument}/{CMA_ARGUMENT}/" if it.cma_argument else f"s/$/ {CMA_ARGUMENT}/"
    command = f"sudo sed -i '/^\\s*APPEND /{change}' /boot/extlinux/extlinux.conf && sudo reboot"
    return Finding("contiguous memory", found, "warning", f"{command}; or export with --lm-head-parts 4")


def swap(it: Readings) -> Finding | None:
    """For information: neither the GPU nor contiguous memory can be had from swap."""
    if it.memory is None or not it.jetson:
        return None
    size = f"{it.memory.swap_total / GIB:.1f} GiB" if it.memory.swap_total else "none"
    return Finding("swap", f"{size}; it helps exports, never the GPU or a build that lacks contiguous memory")


def sensors(it: Readings) -> Finding | None:
    """What tegrastats measures at the moment."""
    if it.sample is None:
        return None
    watts = board_power_mw(it.sample.power_mw)
    power = "no power sensors" if watts is None else f"{watts / 1000:.1f} W ({' + '.join(counted(it.sample.power_mw))})"
    hottest = max(it.sample.temperatures_c.values(), default=None)
    return Finding("sensors", power if hottest is None else f"{power}, hottest {hottest:.0f} degrees C")


def cuda(it: Readings) -> Finding | None:
    """Does the CUDA driver answer, and see a GPU?"""
    if it.cuda is None:
        return None
    expected = it.jetson or bool(it.gpus)
    if it.cuda.devices:
        names = ", ".join(f"{device.name}, SM {device.capability}" for device in it.cuda.devices)
        driver = f", driver {it.driver}" if it.driver else ""
        return Finding("CUDA", f"{it.cuda.version}{driver}: {names}")
    if not expected and not it.cuda.installed:
        return Finding("CUDA", "no driver: the CPU is used")
    why = it.cuda.error or "the driver sees no device"
    groups = "sudo usermod -aG video,render $USER and log in again; in a container: --runtime nvidia (a PC: --gpus all)"
    return Finding("CUDA", why, "problem" if expected else "warning", groups)


def tensorrt(it: Readings) -> Finding:
    """Is there a TensorRT that can be imported, and is it the one that JetPack brought?"""
    brought, full = packages.tensorrt(it.packages), it.modules.get("tensorrt")
    if full is not None and full.version is not None:
        if it.jetson and brought is not None and brought.split(".")[:3] != full.version.split(".")[:3]:
            found = f"the Python module is {full.version}, JetPack's library {brought}"
            return Finding("TensorRT", found, "problem", "pip uninstall -y tensorrt; JetPack brings its own")
        return Finding("TensorRT", f"tensorrt {full.version}")
    rtx = it.modules.get("tensorrt_rtx")
    if not it.jetson and rtx is not None and rtx.version is not None:
        return Finding("TensorRT", f"tensorrt_rtx {rtx.version}")
    if it.jetson:
        return _board_tensorrt(it, full)
    broken = next((entry for entry in (full, rtx) if entry is not None and entry.installed), None)
    if broken is not None:
        fix = "pip install --force-reinstall 'hired-edge[tensorrt]'"
        return Finding("TensorRT", f"it cannot be imported: {broken.error or 'it has no version'}", "warning", fix)
    return Finding("TensorRT", "not installed; only engines need it (pip install 'hired-edge[tensorrt]')")


def _board_tensorrt(it: Readings, full: Module | None) -> Finding:
    """A board whose TensorRT cannot be imported: why, and what to do."""
    if "python3-libnvinfer" not in it.packages:
        found = "JetPack's Python module is not installed"
        return Finding("TensorRT", found, "problem", "sudo apt-get install -y python3-libnvinfer")
    if it.isolated:
        found = f"installed by JetPack, but hidden from this venv ({it.environment})"
        config = shlex.quote(f"{it.environment}/pyvenv.cfg")
        fix = f"sed -i '/^include-system-site-packages/s/false/true/' {config}"
        return Finding("TensorRT", found, "problem", fix)
    why = "not tried" if full is None else full.error or "it has no version"
    fix = "use a venv of /usr/bin/python3 with --system-site-packages: JetPack's module is for that Python alone"
    return Finding("TensorRT", f"installed by JetPack, but not for Python {it.python}: {why}", "problem", fix)


def cuda_bindings(it: Readings) -> Finding | None:
    """Do the CUDA bindings, which the TensorRT backend needs, import and fit the driver?"""
    bindings = it.modules.get("cuda-bindings")
    gpu = it.cuda is not None and bool(it.cuda.devices)
    if bindings is None or (not bindings.installed and not gpu):
        return None
    if not bindings.installed:
        return Finding("CUDA bindings", "not installed", "warning", "pip install 'hired-edge[tensorrt]'")
    if bindings.version is None:
        fix = "pip install --force-reinstall cuda-bindings"
        return Finding("CUDA bindings", bindings.error or "it has no version", "problem" if gpu else "warning", fix)
    served = it.cuda.version if it.cuda is not None else None
    if gpu and served is not None and int(bindings.version.split(".")[0]) > int(served.split(".")[0]):
        found = f"{bindings.version}, but the driver serves CUDA {served}"
        return Finding("CUDA bindings", found, "problem", f"pip install 'cuda-bindings=={served.split('.')[0]}.*'")
    return Finding("CUDA bindings", bindings.version)


def onnxruntime(it: Readings) -> Finding | None:
    """Is there exactly one ONNX Runtime?"""
    found = it.modules.get("onnxruntime")
    if found is None:
        return None
    if len(found.distributions) > 1:
        both = " and ".join(f"{name} {version}" for name, version in found.distributions.items())
        fix = f"pip uninstall -y {' '.join(DISTRIBUTIONS)}; then: pip install 'hired-edge[cpu]', or [gpu]"
        return Finding("ONNX Runtime", f"{both} overwrite each other's files", "problem", fix)
    if found.version is not None:
        return Finding("ONNX Runtime", ", ".join(f"{k} {v}" for k, v in found.distributions.items()) or found.version)
    if found.installed:
        fix = "pip install --force-reinstall 'hired-edge[cpu]'"
        return Finding("ONNX Runtime", f"it cannot be imported: {found.error}", "problem", fix)
    return Finding("ONNX Runtime", "not installed", "problem", "pip install 'hired-edge[cpu]'")


def cpu_provider(it: Readings) -> Finding | None:
    """Did an inference on the CPU give the right numbers?"""
    tried = it.providers.get("CPUExecutionProvider")
    if tried is None or not tried.compiled:
        return None  # without ONNX Runtime: said above
    if tried.ran:
        return Finding("CPU provider", "an inference gave the right numbers")
    fix = "pip install --force-reinstall 'hired-edge[cpu]'"
    return Finding("CPU provider", tried.detail, "problem", fix)


def cuda_provider(it: Readings) -> Finding | None:
    """Did an inference on the GPU give the right numbers, where this ONNX Runtime has CUDA?"""
    tried = it.providers.get("CUDAExecutionProvider")
    gpu = it.cuda is not None and bool(it.cuda.devices)
    if tried is None or (not tried.compiled and not gpu):
        return None
    if tried.ran:
        return Finding("CUDA provider", "an inference gave the right numbers")
    if tried.compiled:
        found = f"compiled in, but it does not run: {tried.detail}"
        fix = "install the CUDA and cuDNN that this onnxruntime-gpu was built for, or use hired-edge[cpu]"
        return Finding("CUDA provider", found, "problem" if gpu else "warning", fix)
    if it.jetson:
        return Finding(
            "CUDA provider", "not in this onnxruntime (PyPI has none for a Jetson); TensorRT is the GPU path"
        )
    fix = f"pip uninstall -y {' '.join(DISTRIBUTIONS)}; then: pip install 'hired-edge[gpu]'"
    return Finding("CUDA provider", "not in this onnxruntime", "warning", fix)


RULES = (
    machine,
    jetpack,
    power,
    clocks,
    memory,
    desktop,
    contiguous,
    swap,
    sensors,
    cuda,
    cuda_bindings,
    tensorrt,
    onnxruntime,
    cpu_provider,
    cuda_provider,
)


def findings(it: Readings) -> list[Finding]:
    """Every rule's finding, in the order of `RULES`; rules that have nothing to say on this machine are left out."""
    return [finding for rule in RULES if (finding := rule(it)) is not None]
