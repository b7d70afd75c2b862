"""The picture of docs/serving.md: requests a second and the time to the first token, against clients."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hired_runtime.whole import whole

# Okabe and Ito's palette, which the colour-blind can tell apart.
_COLOURS = {"new": "#D55E00", "further": "#0072B2"}
_NAMES = {"new": "about a new picture", "further": "one more about the same"}


def draw(loads: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws what `benchmarks.serving` has measured into a PNG.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    figure: Figure = Figure(figsize=(9.6, 3.4), dpi=130, layout="constrained")
    rate, wait = figure.subplots(1, 2)
    for kind, colour in _COLOURS.items():
        rows = [each for each in loads if each["kind"] == kind]
        clients = [each["clients"] for each in rows]
        rate.plot(clients, [each["per_s"] for each in rows], "o-", color=colour, label=_NAMES[kind])
        middle, most = ([each[name] for each in rows] for name in ("ttft_p50", "ttft_p95"))
        wait.plot(clients, middle, "o-", color=colour, label=f"{_NAMES[kind]}, median")
        wait.plot(clients, most, ":", color=colour, label="95th percentile")
    for axes, title in ((rate, "questions a second"), (wait, "time to first token, ms")):
        axes.set_title(title, fontsize=11, loc="left")
        axes.set_xlabel("clients")
        axes.set_xscale("log", base=2)
        clients = sorted({each["clients"] for each in loads})
        axes.set_xticks(clients, [str(each) for each in clients])
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#dddddd", linewidth=0.7)
        axes.legend(frameon=False, fontsize=9)
    rate.set_ylim(bottom=0)
    wait.set_yscale("log")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    with whole(path) as partial:
        partial.write_bytes(buffer.getvalue())
