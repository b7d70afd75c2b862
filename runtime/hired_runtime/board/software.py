"""What is installed and what of it really works, each tried in a process of its own.

`ort.get_available_providers()` names what was compiled in; here a provider counts when an inference on it gave the
right numbers. A module counts when it could be imported.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hired_edge.engines import DISTRIBUTIONS
from hired_runtime.board import onnx_graph
from hired_runtime.board.machine import TIMED_OUT, Machine

PROVIDERS = ("CPUExecutionProvider", "CUDAExecutionProvider")
_CHILDREN = Path(__file__).parent / "children"
_TIMEOUT_S = 60.0  # the first use of CUDA on a board can take ten seconds and more

# Modules by the name that people know: distributions that bring them, and ways to import them (PyPI's wheels of
# TensorRT for RTX go by another name than its metapackage, after their libraries).
MODULES: dict[str, tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]] = {
    "onnxruntime": (DISTRIBUTIONS, (("onnxruntime",),)),
    "tensorrt": (("tensorrt", "tensorrt-cu12", "tensorrt-cu13"), (("tensorrt",),)),
    "tensorrt_rtx": (
        ("tensorrt-rtx", "tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu12-bindings"),
        (("tensorrt_rtx",), ("tensorrt_rtx_libs", "tensorrt_rtx_bindings")),
    ),
    "cuda-bindings": (("cuda-bindings",), (("cuda.bindings.driver", "cuda.bindings"),)),
}


@dataclass(frozen=True)
class Module:
    """A Python module: `version` where it can be imported, `error` where it cannot; `distributions` from metadata."""

    installed: bool
    version: str | None
    error: str | None
    distributions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Provider:
    """A provider of ONNX Runtime: whether it was compiled in, whether it ran, and a word on either."""

    compiled: bool
    ran: bool
    detail: str


@dataclass(frozen=True)
class Device:
    """One CUDA device: compute capability "8.7", memory in bytes."""

    name: str
    capability: str
    memory: int


@dataclass(frozen=True)
class Cuda:
    """The CUDA driver: whether libcuda is there, the newest CUDA that it serves, its devices; `error` if it fails."""

    installed: bool
    version: str | None
    devices: tuple[Device, ...]
    error: str | None


def module(machine: Machine, name: str) -> Module | None:
    """One of `MODULES`, in this interpreter; None where nothing can be tried (a recorded machine)."""
    distributions, ways = MODULES[name]
    found = None
    for way in ways:
        answer = _ask(machine, "import_module.py", ",".join(distributions), *way)
        if "died" in answer:
            return Module(True, None, answer["died"])
        found = Module(**answer) if answer else None
        if found is None or found.installed:
            return found
    return found


def provider(machine: Machine, name: str) -> Provider | None:
    """Tries `name` with a real inference; None where nothing can be tried."""
    answer = _ask(machine, "run_provider.py", onnx_graph.matmul().hex(), name)
    if "died" in answer:
        return Provider(True, False, answer["died"])
    return Provider(answer["compiled"], answer["ran"], _line(answer["detail"])) if answer else None


def cuda(machine: Machine) -> Cuda | None:
    """Asks the driver; None where nothing can be tried."""
    answer = _ask(machine, "cuda_driver.py")
    if "died" in answer:
        return Cuda(True, None, (), answer["died"])
    if "error" in answer:
        return Cuda(answer["installed"], None, (), answer["error"])
    return (
        Cuda(True, answer["version"], tuple(Device(**device) for device in answer["devices"]), None) if answer else None
    )


def _ask(machine: Machine, script: str, *arguments: str) -> dict[str, Any]:
    """What a child prints; {"died": why} where it crashed, hung or said nothing; {} where it was not run."""
    output = machine.command(sys.executable, str(_CHILDREN / script), *arguments, timeout_s=_TIMEOUT_S)
    if output is None:
        return {}
    if output.status != 0:
        last = _line(output.errors)
        how = f"signal {-output.status}" if output.status < 0 else f"status {output.status}"
        return {"died": last if output.status == TIMED_OUT else f"its process ended with {how}: {last}"}
    for line in reversed(output.text.splitlines()):  # libraries may print before it, and when the process ends
        with suppress(ValueError):
            if isinstance(answer := json.loads(line), dict):
                return answer
    return {"died": f"its process ended without an answer: {_line(output.text)}"}


def _line(text: str) -> str:
    """The end of a long message, on one line."""
    return " ".join(text.split())[-300:]
