"""`dpkg-query --list` -> versions of the Debian packages that JetPack brings. It does not know what pip installed."""

from __future__ import annotations

import re
from collections.abc import Mapping

PATTERNS = ("nvidia-jetpack", "nvidia-l4t-core", "libnvinfer[0-9]*", "python3-libnvinfer", "cuda-cudart-[0-9]*")
COMMAND = ("dpkg-query", "--list", *PATTERNS)

_ROW = re.compile(r"^ii\s+([^\s:]+)(?::\w+)?\s+(\S+)", re.MULTILINE)
_TENSORRT = re.compile(r"libnvinfer\d+$")
_CUDA = re.compile(r"cuda-cudart-(\d+)-(\d+)$")


def parse(text: str) -> dict[str, str]:
    """Installed packages and their versions ("libnvinfer10": "10.3.0.30-1+cuda12.5")."""
    return dict(_ROW.findall(text))


def tensorrt(packages: Mapping[str, str]) -> str | None:
    """ "10.3.0.30"; the newest, should there be several."""
    found = [version.partition("-")[0] for name, version in packages.items() if _TENSORRT.match(name)]
    return max(found, key=_numbers, default=None)


def cuda(packages: Mapping[str, str]) -> str | None:
    """ "12.6": the newest CUDA runtime installed."""
    found = [f"{match[1]}.{match[2]}" for name in packages if (match := _CUDA.match(name))]
    return max(found, key=_numbers, default=None)


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]
