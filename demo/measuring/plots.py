"""The pictures of docs/accuracy.md that no single report draws: alpha, tokens of each picture, time and memory."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo.measuring.across import NAME as ACROSS
from demo.measuring.runs import LONGEST
from demo.reports import ALL, ROOT, Report
from demo.scenes.questions import TASKS
from hired_runtime.whole import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FOLDER = ROOT / "docs/accuracy"
# Okabe and Ito's palette, which the colour-blind can tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_BLACK = "#222222"


def draw_all(accuracy: Path) -> None:
    """Draws every picture from the reports in `accuracy`.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    tokens = json.loads((accuracy / ACROSS).read_text(encoding="utf-8"))["tokens"]
    profile = json.loads((accuracy / "cost/profile.json").read_text(encoding="utf-8"))
    _save("alpha.png", (9.6, 4.2), 2, _alpha)
    _save("tokens.png", (9.6, 3.6), 1, lambda axes: _tokens(axes[0], tokens))
    _save("cost.png", (9.6, 3.6), 2, lambda axes: _cost(axes, profile))


def _save(name: str, size: tuple[float, float], across: int, draw: Callable[[list[Axes]], None]) -> None:
    from matplotlib.figure import Figure

    figure: Figure = Figure(figsize=size, dpi=130, layout="constrained")
    axes = list(figure.subplots(1, across, squeeze=False).reshape(-1))
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", color="#dddddd", linewidth=0.7)
        panel.set_axisbelow(True)
    draw(axes)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    with whole(FOLDER / name) as partial:
        partial.write_bytes(buffer.getvalue())


def _alpha(axes: list[Axes]) -> None:
    """The paper's Figure 6: accuracy against alpha, a panel a budget."""
    compact, placed = Report("alpha"), Report("alpha-placed")
    alphas = [tenth / 10 for tenth in range(11)]
    for panel, budget in zip(axes, ("40%", "20%"), strict=True):
        for task, colour in zip(TASKS, _COLOURS, strict=False):
            _line(panel, alphas, [compact.row("hired", budget, task, alpha=alpha) for alpha in alphas], task, colour)
        overall = [compact.row("hired", budget, ALL, alpha=alpha) for alpha in alphas]
        _line(panel, alphas, overall, "all tasks", _BLACK, linewidth=2.4)
        overall = [placed.row("hired-placed", budget, ALL, alpha=alpha) for alpha in alphas]
        _line(panel, alphas, overall, "all tasks, hired-placed", _BLACK, linewidth=2.4, linestyle=(0, (4, 2)))
        panel.set_title(f"budget {budget.replace('%', ' %')}", fontsize=11)
        panel.set_xlabel("alpha, the base picture's share")
        panel.set_ylim(-3, 103)
    axes[0].set_ylabel("accuracy (%)")
    axes[1].legend(frameon=False, fontsize=8, loc="lower left")


def _line(panel: Axes, x: list[float], rows: list[Any], label: str, colour: str, **style: Any) -> None:
    value, low, high = ([100 * row[part] for row in rows] for part in ("accuracy", "low", "high"))
    panel.plot(x, value, color=colour, label=label, marker="o", markersize=3.5, **{"linewidth": 1.4, **style})
    panel.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)


def _tokens(panel: Axes, tokens: dict[str, list[int]]) -> None:
    """The paper's Figure 5: visual tokens of each picture."""
    shown = ("full 100%", f"prumerge+ {LONGEST}", f"prumerge {LONGEST}", "hired 40%", "hired 20%")
    order = sorted(range(len(tokens["full 100%"])), key=lambda i: tokens["full 100%"][i])
    for name, colour in zip(shown, (_BLACK, *_COLOURS), strict=False):
        label = name.removesuffix(f" {LONGEST}").removesuffix(" 100%").replace("%", " %")
        panel.plot([tokens[name][i] for i in order], color=colour, label=label, linewidth=1.6)
    panel.set_xlabel(f"{len(order)} pictures, by the length of their whole sequence")
    panel.set_ylabel("visual tokens")
    panel.set_ylim(bottom=0)
    panel.legend(frameon=False, fontsize=8, ncols=2, loc="upper left")


def _cost(axes: list[Axes], profile: dict[str, Any]) -> None:
    """Time to the first token, and bytes of the cache, against budget."""
    budgets = [each["budget"] for each in profile["budgets"]]
    places = [float(budget.rstrip("%")) for budget in budgets]
    ttft = [each["timings_ms"]["ttft"] for each in profile["budgets"]]
    low, high = ([each[part] for each in ttft] for part in ("min", "p95"))
    axes[0].plot(places, [each["median"] for each in ttft], color=_COLOURS[0], marker="o")
    axes[0].fill_between(places, low, high, color=_COLOURS[0], alpha=0.15, linewidth=0)
    axes[0].set_ylabel("time to first token (ms)\nmedian; least to 95th percentile")
    axes[1].plot(places, [each["cache_bytes"] / 2**20 for each in profile["budgets"]], color=_COLOURS[1], marker="s")
    axes[1].set_ylabel("key-value cache (MiB)")
    for panel in axes:
        panel.set_xlabel("visual-token budget (%)")
        panel.set_ylim(bottom=0)
        panel.set_xticks(places, [budget.rstrip("%") for budget in budgets])
