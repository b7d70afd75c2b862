"""On what ONNX Runtime runs a bundle: the CPU, or an NVIDIA GPU where its CUDA provider really works.

"Compiled in" says nothing: the provider's libraries, the driver and the GPU may be missing. So a small graph is run on
it first, in a process of its own, since a broken installation may crash. Which operators the provider has, its list
tells (microsoft/onnxruntime docs/OperatorKernels.md): all of the standard graph's, and TensorScatter writes in place
where past and present share an address (core/providers/cuda/llm/tensorscatter.cc).
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import onnxruntime as ort

from hired_edge.manifest import Manifest, Target
from hired_runtime.board import software
from hired_runtime.board.machine import Machine

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

ON_CUDA: tuple[Target, ...] = ("cuda", "jp7")
"""Whose graphs the CUDA provider runs whole. `cpu` holds GroupQueryAttention in fp32, which it has not; `jp6` returns
new keys and values that would have to be copied within the device, which this interface cannot."""

CUDA_SINCE = (1, 26)
"""Attention with a bool mask and grouped heads in every one of its kernels (microsoft/onnxruntime #27992, #28198)."""

log = logging.getLogger(__name__)


def choose_provider(manifest: Manifest) -> str:
    """CUDA for a target that it runs, where it works; else the CPU, said in the log where that is slow."""
    if manifest.target == "cpu":
        return CPU
    why_not = None if manifest.target in ON_CUDA else "ONNX Runtime's CUDA provider has no place for its cache"
    why_not = why_not or _cuda_trouble()
    if why_not is None:
        return CUDA
    log.warning("hired-edge: a bundle of --target %s runs on the CPU, slowly: %s", manifest.target, why_not)
    return CPU


def session_providers(provider: str) -> list[Any]:
    """As a session takes them."""
    if provider == CPU:
        return [CPU]
    # An arena that doubles whenever it grows would hold twice what a prefill needs.
    return [(CUDA, {"device_id": "0", "arena_extend_strategy": "kSameAsRequested"}), CPU]


@cache
def _cuda_trouble() -> str | None:
    """Why the CUDA provider is not used; None where it works."""
    if CUDA not in ort.get_available_providers():
        return f"onnxruntime {ort.__version__} has no {CUDA}"
    if tuple(int(part) for part in ort.__version__.split(".")[:2]) < CUDA_SINCE:
        return f"onnxruntime {ort.__version__} is older than {'.'.join(map(str, CUDA_SINCE))}"
    tried = software.provider(Machine(), CUDA)
    if tried is None:
        return f"{CUDA} could not be tried"
    return None if tried.ran else f"{CUDA} does not work here ({tried.detail})"
