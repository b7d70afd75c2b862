"""The picture of an evaluation: accuracy against budget, a panel a task, a line a policy with its interval as a band.

The only module that needs matplotlib (the `eval` extra), and only once `draw` is called.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hired_runtime.evaluation.result import Evaluation
from hired_runtime.evaluation.settings import Setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, which the colour-blind can tell apart, in an order of falling contrast on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "osD^vPX"
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))
_STOCK_COLOUR = "#444444"
_PANEL = (4.0, 3.1)  # inches
_DPI = 130


def draw(result: Evaluation) -> bytes:
    """The figure as a PNG.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    panels: list[str | None] = [*result.tasks, *([None] if len(result.tasks) > 1 else [])]
    across = min(len(panels), 3 if len(panels) != 4 else 2)
    down = math.ceil(len(panels) / across)
    figure = Figure(figsize=(_PANEL[0] * across + 0.3, _PANEL[1] * down + 0.8), dpi=_DPI, layout="constrained")
    axes = figure.subplots(down, across, sharey=True, squeeze=False).reshape(-1)
    for panel, task in zip(axes, panels, strict=False):
        _draw_panel(panel, result, task)
    for unused in axes[len(panels) :]:
        unused.set_visible(False)
    for panel in axes[::across]:
        panel.set_ylabel("accuracy (%)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(len(labels), 2 * across), frameon=False, handlelength=3
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw_panel(panel: Axes, result: Evaluation, task: str | None) -> None:
    ticks = {setting.budget: max(result.positions[setting.budget], 0.5) for setting in result.settings}
    lines: dict[str, list[Setting]] = {}
    for setting in result.settings:
        lines.setdefault(setting.name, []).append(setting)
    policies = list(dict.fromkeys(setting.policy for setting in result.settings if setting.policy != "full"))
    used: dict[str, int] = {}
    for name, settings in lines.items():
        policy = settings[0].policy
        estimates = [result.accuracy(setting, task) for setting in settings]
        if policy == "full":
            value, low, high = (100 * each for each in estimates[0][:3])
            panel.axhline(value, color=_STOCK_COLOUR, linestyle=(0, (4, 3)), linewidth=1.2, label=name, zorder=1)
            panel.axhspan(low, high, color=_STOCK_COLOUR, alpha=0.10, linewidth=0)
            continue
        place = policies.index(policy)
        variant = used[policy] = used.get(policy, -1) + 1
        _draw_line(
            panel,
            [ticks[setting.budget] for setting in settings],
            [[100 * each[part] for each in estimates] for part in range(3)],
            name,
            (_COLOURS[place % len(_COLOURS)], _MARKERS[place % len(_MARKERS)], _DASHES[variant % len(_DASHES)]),
            order=len(policies) - place,
        )
    n = len(result.scores(result.settings[0], task))
    panel.set_title(f"{'all tasks' if task is None else _plain(task)} (n = {n})", fontsize=11)
    panel.set_xscale("log")
    panel.minorticks_off()
    crowded = len(ticks) > 6
    panel.set_xticks(list(ticks.values()), list(ticks), rotation=60 if crowded else 0, fontsize=8 if crowded else 9)
    panel.set_xlim(min(ticks.values()) / 1.25, max(ticks.values()) * 1.25)
    panel.set_ylim(-3, 103)
    panel.set_xlabel("visual-token budget (log scale)")
    panel.grid(axis="y", color="#dddddd", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def _draw_line(
    panel: Axes,
    positions: Sequence[float],
    values: Sequence[Sequence[float]],
    name: str,
    style: tuple[str, str, str | tuple],
    order: int,
) -> None:
    """`values`: accuracy, low and high of each position, in percent. A line of higher order is drawn over others."""
    colour, marker, dashes = style
    points = sorted(zip(positions, *values, strict=True))
    x, value, low, high = ([point[part] for point in points] for part in range(4))
    look = {"color": colour, "linewidth": 1.6, "zorder": 3 + order}
    panel.plot(x, value, marker=marker, linestyle=dashes, markersize=5, label=name, **look)
    if len(x) > 1:
        panel.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0, zorder=2)
    else:
        panel.vlines(x, low, high, **look)


def _plain(text: str) -> str:
    """A heading without what matplotlib would read as mathematics, and not too long."""
    line = " ".join(text.split()).replace("$", r"\$")
    return line if len(line) <= 40 else line[:39] + "…"
