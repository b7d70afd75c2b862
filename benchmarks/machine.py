"""What the comparison runs on. Called in a process of its own, so that nothing of PyTorch stays on the GPU."""

from __future__ import annotations

import platform
from collections.abc import Callable

from benchmarks.results import Device, Where
from hired_edge import __version__
from hired_edge.errors import InputError
from hired_runtime.board.machine import Machine
from hired_runtime.board.nvidia_smi import COMMAND, parse_query
from hired_runtime.profiling.gpu_memory import LIBRARY, GpuMemory
from hired_runtime.profiling.machine import machine


def look(device: Device, report: Callable[[str], None]) -> Where:
    """The machine and its versions.

    Raises:
        InputError: a GPU is asked for and PyTorch has none, or its memory cannot be asked for.
    """
    import torch
    import transformers

    report("PyTorch")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"no NVIDIA GPU: torch {torch.__version__} finds none",
            expected="one, with its driver and a torch for CUDA",
            fix="run it where there is one: make gpu-check",
        )
    if device == "cuda" and not _memory_told():
        raise InputError(
            "a GPU whose memory NVML does not tell",
            expected=f"{LIBRARY}, which comes with NVIDIA's driver",
            fix="install the driver's libraries where this runs (in a container: its compute,utility capabilities)",
        )
    asked = Machine().command(*COMMAND) if device == "cuda" else None
    gpus = () if asked is None else parse_query(asked.text)
    here = machine()
    return Where(
        accelerator=torch.cuda.get_device_name(0) if device == "cuda" else None,
        driver=gpus[0].driver if gpus else None,
        cuda=torch.version.cuda,
        processor=f"{here.processor}, {here.cores} cores",
        python=platform.python_version(),
        torch=torch.__version__,
        transformers=transformers.__version__,
        hired_edge=__version__,
    )


def _memory_told() -> bool:
    memory = GpuMemory()
    found = memory.found
    memory.close()
    return found > 0
