"""Where the benchmarks of Ray write their figures, and the plot beside them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from benchmarks.ray_runs import ROOT
from hired_runtime.whole import whole

PAGE = ROOT / "docs/scaling.md"


def draw(
    path: Path,
    workers: Sequence[int],
    rates: Sequence[float],
    label: str,
    ideal: tuple[float, str],
    line: tuple[float, str] | None = None,
) -> None:
    """Rows a second against workers.

    Args:
        ideal: rows a second for each worker, if nothing were lost, and what that is called.
        line: a rate that does not depend on workers, and what it is of.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    figure: Figure = Figure(figsize=(5.4, 3.4), dpi=130, layout="constrained")
    axes = figure.subplots()
    axes.plot(workers, [ideal[0] * count for count in workers], ":", color="#888888", label=ideal[1])
    if line is not None:
        axes.axhline(line[0], color="#D55E00", linewidth=1, label=line[1])
    axes.plot(workers, rates, "o-", color="#0072B2", label=label)
    axes.set_title("rows a second", fontsize=11, loc="left")
    axes.set_xlabel("workers")
    axes.set_xticks(workers)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    axes.legend(frameon=False, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    with whole(path) as partial:
        partial.write_bytes(buffer.getvalue())
