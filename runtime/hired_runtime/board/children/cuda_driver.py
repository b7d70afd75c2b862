"""Asks the CUDA driver for its version and its devices, by ctypes: it needs no package.

Source: CUDA Driver API, "Initialization", "Version Management" and "Device Management".
"""

from __future__ import annotations

import ctypes
import json

MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


class CudaError(Exception):
    """A call that failed."""


def main() -> dict:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return {"error": str(error), "installed": False}
    try:
        return ask(driver)
    except CudaError as error:
        return {"error": str(error), "installed": True}


def ask(driver: ctypes.CDLL) -> dict:
    def call(name: str, *arguments: object) -> None:
        status = getattr(driver, name)(*arguments)
        if status != 0:
            text = ctypes.c_char_p()
            driver.cuGetErrorString(status, ctypes.byref(text))
            raise CudaError(f"{name}: {(text.value or b'unknown error').decode()} ({status})")

    version, count = ctypes.c_int(), ctypes.c_int()
    call("cuDriverGetVersion", ctypes.byref(version))
    call("cuInit", 0)
    call("cuDeviceGetCount", ctypes.byref(count))
    devices = []
    for ordinal in range(count.value):
        device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
        major, minor = ctypes.c_int(), ctypes.c_int()
        call("cuDeviceGet", ctypes.byref(device), ordinal)
        call("cuDeviceGetName", name, len(name), device)
        call("cuDeviceGetAttribute", ctypes.byref(major), MAJOR, device)
        call("cuDeviceGetAttribute", ctypes.byref(minor), MINOR, device)
        call("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
        capability = f"{major.value}.{minor.value}"
        devices.append({"name": name.value.decode(), "capability": capability, "memory": memory.value})
    return {"version": f"{version.value // 1000}.{version.value % 1000 // 10}", "devices": devices}


if __name__ == "__main__":
    print(json.dumps(main()))
