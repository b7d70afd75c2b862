"""The device tree's `compatible` and `model` -> which Jetson module this is, and its compute capability.

Source: NVIDIA's part numbers as rbonghi/jetson_stats keeps them (jtop/core/jetson_variables.py, commit f41d5ca). A
module that was flashed for another one says what it was flashed for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_PART = re.compile(r"p\d{4}-\d{4}")
_SOC = re.compile(r"tegra\d{3}")

MODULES = {
    "p3834-0008": "Jetson AGX Thor",
    "p3767-0005": "Jetson Orin Nano 8GB (developer kit)",
    "p3767-0004": "Jetson Orin Nano 4GB",
    "p3767-0003": "Jetson Orin Nano 8GB",
    "p3767-0001": "Jetson Orin NX 8GB",
    "p3767-0000": "Jetson Orin NX 16GB",
    "p3701-0005": "Jetson AGX Orin 64GB",
    "p3701-0004": "Jetson AGX Orin 32GB",
    "p3701-0000": "Jetson AGX Orin",
}

# A system on chip and its GPU's compute capability, as nvcc and engines name it.
CAPABILITIES = {"tegra264": "11.0", "tegra234": "8.7", "tegra194": "7.2", "tegra186": "6.2", "tegra210": "5.3"}
ORIN = "tegra234"


@dataclass(frozen=True)
class Module:
    """A Jetson module.

    Attributes:
        name: NVIDIA's name of the module, or what the device tree calls the board.
        part: "p3767-0000", None where the device tree has no part that the table knows.
        soc: "tegra234", None if unknown.
        capability: "8.7", None if unknown.
    """

    name: str
    part: str | None
    soc: str | None
    capability: str | None


def parse(compatible: str, model: str) -> Module | None:
    """From /proc/device-tree/compatible and /proc/device-tree/model; None if it is no Jetson."""
    soc = next(iter(_SOC.findall(compatible)), None)
    parts = _PART.findall(compatible)
    part = next((part for part in parts if part in MODULES), None)
    name = model.strip()
    if soc is None and part is None and "Jetson" not in name:
        return None
    if soc is None and part is not None:
        soc = "tegra264" if part.startswith("p3834") else ORIN
    return Module(MODULES[part] if part else name, part, soc, CAPABILITIES.get(soc or ""))
