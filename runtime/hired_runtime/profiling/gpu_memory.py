"""Memory in use on NVIDIA GPUs, asked of the driver's management library (NVML) through ctypes.

Source: NVML's API reference (nvmlDeviceGetMemoryInfo, nvmlMemory_t). A Jetson's GPU has no memory of its own, and NVML
there reports none: it is the system's. What other programs hold on a GPU is counted along.
"""

from __future__ import annotations

import ctypes
from typing import Any

LIBRARY = "libnvidia-ml.so.1"
_SUCCESS = 0


class _MemoryInfo(ctypes.Structure):
    """nvmlMemory_t, in bytes."""

    _fields_ = [
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    ]


class GpuMemory:
    """The GPUs that NVML finds and whose memory it tells.

    Attributes:
        found: how many; 0 without a driver, or on a Jetson.
    """

    def __init__(self) -> None:
        self._library = _library()
        self._devices = [] if self._library is None else _devices(self._library)
        self.found = len(self._devices)

    def used_bytes(self) -> int:
        """Of all of them together."""
        return sum(_used(self._library, device) or 0 for device in self._devices)

    def close(self) -> None:
        if self._library is not None:
            self._library.nvmlShutdown()
            self._library, self._devices = None, []


def _library() -> Any:
    """NVML, initialised; None where there is none."""
    try:
        library = ctypes.CDLL(LIBRARY)
        return library if library.nvmlInit_v2() == _SUCCESS else None
    except (OSError, AttributeError):
        return None


def _devices(library: Any) -> list[ctypes.c_void_p]:
    count = ctypes.c_uint()
    if library.nvmlDeviceGetCount_v2(ctypes.byref(count)) != _SUCCESS:
        return []
    devices = []
    for index in range(count.value):
        device = ctypes.c_void_p()
        if library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)) == _SUCCESS:
            devices.append(device)
    return [device for device in devices if _used(library, device) is not None]


def _used(library: Any, device: ctypes.c_void_p) -> int | None:
    info = _MemoryInfo()
    status = library.nvmlDeviceGetMemoryInfo(device, ctypes.byref(info))
    return info.used if status == _SUCCESS else None
