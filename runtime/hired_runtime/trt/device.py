"""Which NVIDIA GPU is here, asked through cuda-bindings. It allocates nothing and makes no context."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from hired_edge.errors import MissingExtraError


@dataclass(frozen=True)
class Device:
    """The first GPU.

    Args:
        name: as the driver gives it.
        sm: 10 * major + minor of its compute capability.
        driver: the newest CUDA that the driver runs ("13.2").
    """

    name: str
    sm: int
    driver: str


def find_device() -> Device | None:
    """The first GPU; None where there is no driver or no GPU.

    Raises:
        MissingExtraError: cuda-bindings is not installed.
    """
    try:
        importlib.import_module("cuda.bindings")
        driver: Any = importlib.import_module("cuda.bindings.driver")
    except ImportError as error:
        raise MissingExtraError(
            f"cuda-bindings cannot be imported ({' '.join(str(error).split())[:120]})",
            expected="the 'tensorrt' extra, or 'tensorrt-rtx'",
            fix="run: pip install 'hired-edge[tensorrt]'",
        ) from None
    try:
        if int(driver.cuInit(0)[0]):
            return None
    except RuntimeError:  # no libcuda on this machine: cuda-bindings finds it when it is first called
        return None
    error, count = driver.cuDeviceGetCount()
    if int(error) or not count:
        return None
    attribute = driver.CUdevice_attribute
    _, device = driver.cuDeviceGet(0)
    _, name = driver.cuDeviceGetName(100, device)
    _, major = driver.cuDeviceGetAttribute(attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device)
    _, minor = driver.cuDeviceGetAttribute(attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device)
    _, version = driver.cuDriverGetVersion()
    text = bytes(name).split(b"\0")[0].decode(errors="replace")
    return Device(text, 10 * int(major) + int(minor), f"{int(version) // 1000}.{int(version) % 1000 // 10}")
