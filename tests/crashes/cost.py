"""python -m tests.crashes.cost [FOLDER]: what it takes to see a result onto the disk, beside writing it alone."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from hired_runtime.whole import whole

SIZES = {"4 KiB": 2**12, "4 MiB": 2**22, "256 MiB": 2**28}
TIMES = 5


def alone(path: Path, data: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(data)
    partial.replace(path)


def durably(path: Path, data: bytes) -> None:
    with whole(path) as partial:
        partial.write_bytes(data)


def milliseconds(write: Callable[[Path, bytes], None], path: Path, data: bytes) -> float:
    """The median of a few times."""
    taken = []
    for _ in range(TIMES):
        began = time.perf_counter()
        write(path, data)
        taken.append(time.perf_counter() - began)
    return 1e3 * statistics.median(taken)


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        for name, size in SIZES.items():
            data, path = b"\1" * size, Path(folder, "file.bin")
            print(f"{name}: {milliseconds(alone, path, data):.2f} ms alone, ", end="", flush=True)
            print(f"{milliseconds(durably, path, data):.2f} ms on the disk")


if __name__ == "__main__":
    main()
