"""This runtime: TensorRT where engines can be built for the GPU that is here, else ONNX Runtime.

Measured by `hired_runtime.profiling.measuring`, as `hired-edge profile` does. It imports no torch.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.job import Job
from benchmarks.results import Device, Figures
from benchmarks.spreads import figures
from hired_edge.bundle import read_manifest
from hired_edge.engine_check import Machine
from hired_edge.errors import HiredEdgeError, InputError
from hired_edge.manifest import ENGINES_FOLDER
from hired_runtime.backends import Name
from hired_runtime.commands import build
from hired_runtime.profiling import measuring


class Engine(NamedTuple):
    """What runs a bundle, and why it is not the other one where it is not."""

    backend: Name
    note: str | None


def choose(asked: tuple[str, Device], report: Callable[[str], None]) -> Engine:
    """The backend for a bundle's folder, its engines built where they can be. Called in a process of its own.

    Raises:
        InputError: neither TensorRT nor ONNX Runtime can run it on the GPU.
    """
    bundle, device = asked
    if device == "cpu":
        return Engine("onnxruntime", None)
    report("looking for TensorRT")
    why_not = _tensorrt_trouble(bundle, report)
    if why_not is None:
        return Engine("tensorrt", None)
    from hired_runtime import ort_provider  # imports onnxruntime

    provider = ort_provider.choose_provider(read_manifest(Path(bundle)))
    if provider != ort_provider.CUDA:
        raise InputError(
            f"no engine runs {Path(bundle).name} on this GPU: {why_not}, and ONNX Runtime would use its {provider}",
            expected="TensorRT for this GPU, or onnxruntime-gpu with a working CUDA provider",
            fix="run: hired-edge doctor",
        )
    return Engine("onnxruntime", f"TensorRT is not used: {why_not}")


def _tensorrt_trouble(bundle: str, report: Callable[[str], None]) -> str | None:
    """Why TensorRT does not run the bundle; None where its engines are there, or were built now."""
    from hired_runtime.trt import device, module

    try:
        library, gpu = module.load(), device.find_device()
        if gpu is None:
            return "cuda-bindings finds no GPU"
        known = module.known_sms(library)
        if library.any_gpu and gpu.sm not in known:
            return f"{library} knows SM {', '.join(map(str, known))}, and {gpu.name} is an SM {gpu.sm}"
        folder = Machine(library.name, library.version, gpu.sm).folder
        if not (Path(bundle) / ENGINES_FOLDER / folder).exists():
            report("building TensorRT engines")
            parser = argparse.ArgumentParser()
            build.add_arguments(parser)
            with contextlib.redirect_stdout(sys.stderr):  # the last line of stdout is the comparison's
                build.run(parser.parse_args([bundle]))
    except HiredEdgeError as error:
        return error.got
    return None


def measure(job: Job, report: Callable[[str], None]) -> Figures:
    """Measures one cell.

    Raises:
        HiredEdgeError: the bundle cannot be opened or asked so, out of memory among others.
    """
    found = measuring.measure(job.asked, report)
    return figures(
        job,
        engine=found.engine,
        text_tokens=found.text_tokens,
        visual_tokens=found.visual.kept + found.visual.newlines,
        taken=found.ms,
        memory=found.memory,
    )
