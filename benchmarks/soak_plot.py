"""The picture of docs/reliability.md: what a server held over a soak."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from hired_runtime.whole import whole

_MEMORY, _DESCRIPTORS, _THREADS = "#0072B2", "#D55E00", "#009E73"


def draw(found: dict[str, Any], path: Path) -> None:
    """Draws what `benchmarks.soak` has counted into a PNG.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    samples = found["samples"]
    minutes = [each["seconds"] / 60 for each in samples]
    figure: Figure = Figure(figsize=(9.6, 3.0), dpi=130, layout="constrained")
    memory, others = figure.subplots(1, 2)
    memory.plot(minutes, [each["resident"] / 2**20 for each in samples], color=_MEMORY)
    memory.set_title("resident, MiB", fontsize=11, loc="left")
    others.plot(minutes, [each["descriptors"] for each in samples], color=_DESCRIPTORS, label="file descriptors")
    others.plot(minutes, [each["threads"] for each in samples], color=_THREADS, label="threads")
    others.legend(frameon=False, fontsize=9)
    for axes in (memory, others):
        axes.set_ylim(bottom=0)
        axes.set_xlabel("minutes")
        axes.grid(axis="y", color="#dddddd")
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, metadata={"Software": None})
    with whole(path) as partial:
        partial.write_bytes(buffer.getvalue())
