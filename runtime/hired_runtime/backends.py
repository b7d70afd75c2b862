"""Which engine runs a bundle on this machine: TensorRT where engines were built for it, else ONNX Runtime.

TensorRT is the default where a bundle holds engines, TensorRT's module is installed and a GPU is present: engines that
then do not fit are refused, never passed over. Without a GPU they are some board's, and ONNX Runtime runs the bundle.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Literal

from hired_edge.bundle import Bundle
from hired_edge.engines import check_onnxruntime
from hired_edge.errors import InputError, MissingExtraError
from hired_edge.limits import Limits
from hired_edge.manifest import ENGINES_FOLDER
from hired_runtime.backend import Backend

Name = Literal["onnxruntime", "tensorrt"]
NAMES: tuple[Name, ...] = ("onnxruntime", "tensorrt")

log = logging.getLogger(__name__)


def choose(bundle: str | os.PathLike[str], asked: str | None = None) -> Name:
    """The backend for a bundle's folder; nothing in it is read but the names in `engines/`.

    Args:
        bundle: its folder.
        asked: one of `NAMES`; None = the default.

    Raises:
        InputError: `asked` is no backend.
        MissingExtraError: the chosen one is not installed.
        HiredEdgeError: two distributions of ONNX Runtime are mixed.
    """
    if asked is not None and asked not in NAMES:
        raise InputError(f"backend {asked!r}", expected=" or ".join(NAMES), fix="choose one of them")
    if asked == "tensorrt" or (asked is None and has_engines(Path(bundle)) and _tensorrt_runs(Path(bundle))):
        return "tensorrt"
    check_onnxruntime()
    return "onnxruntime"


def load(name: Name, bundle: Bundle, limits: Limits, threads: int | None = None, spinning: bool = True) -> Backend:
    """Loads the chosen engine of a verified bundle. `threads` and `spinning` are ONNX Runtime's.

    Raises:
        BundleError: the graphs or engines cannot be loaded here.
        InputError: TensorRT on a machine without a GPU.
        MissingExtraError: TensorRT or cuda-bindings is not installed.
    """
    if name == "tensorrt":
        from hired_runtime.trt import backend

        return backend.load(bundle, limits)
    from hired_runtime import ort

    return ort.load(bundle, limits, threads, spinning)


def has_engines(bundle: Path) -> bool:
    """Whether something was built into the bundle, for whatever machine; what a killed build left does not count."""
    try:
        return any(not path.name.startswith(".") for path in (bundle / ENGINES_FOLDER).iterdir())
    except OSError:  # none, or not to be read: opening the bundle tells
        return False


def _tensorrt_runs(bundle: Path) -> bool:
    """Whether TensorRT is installed and a GPU is present. Where only an extra is missing, the log says so."""
    from hired_runtime.trt import device, module

    try:
        found = device.find_device()
        if found is not None:
            module.load()
        return found is not None
    except MissingExtraError as error:
        if _gpu_without_extra():
            log.warning("hired-edge: the engines of %s are not used: %s; %s", bundle, error.got, error.fix)
        return False


def _gpu_without_extra() -> bool:
    """Whether a GPU is here, asked without cuda-bindings."""
    from hired_runtime.board import software
    from hired_runtime.board.machine import Machine

    found = software.cuda(Machine())
    return found is not None and bool(found.devices)
