"""The picture of an evaluation: accuracy against budget, a panel a task, a line a policy with its interval as a band.

The only module that needs matplotlib (the `eval` extra), and only once `draw` is called.
"""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from hired_runtime.evaluation.result import Evaluation
from hired_runtime.evaluation.settings import Setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, which the colour-blind can tell apart, in an order of falling contrast on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "osD^vPX<>ph"  # as many as are prime to the dashes: 44 lines of a policy before two look alike
# Policies that share a colour, from the seventh on, begin with other dashes: theirs differ in both, line by line.
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))
_STOCK_COLOUR = "#444444"
_STOCK_DASHES = ((0, (4, 3)), (0, (1, 2)))
"""Of the whole sequence: a picture's, the base picture's alone."""
_PANEL = (4.0, 3.1)  # inches
_FEW_LINES = 6  # a panel with more of them is larger, and their bands are fainter
_LEGEND_ROW, _HANDLE, _CHARACTER = 0.21, 0.7, 0.078  # inches, of the legend
_FEW_ROWS = 4  # a legend of more makes the figure higher
_DPI = 130
_ASIDE = 0.045  # of the axis: nearer budgets share a tick, and their points lie so far apart if there is room
_MARGIN = 1.25  # the axis goes on to this many times the last tick


class _Look(NamedTuple):
    """A line's. `band`: the opacity of its interval."""

    colour: tuple[float, ...]
    marker: str
    dashes: str | tuple
    band: float


def draw(result: Evaluation) -> bytes:
    """The figure as a PNG.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    panels: list[str | None] = [*result.tasks, *([None] if len(result.tasks) > 1 else [])]
    across = min(len(panels), 3 if len(panels) != 4 else 2)
    down = math.ceil(len(panels) / across)
    names = {setting.name for setting in result.settings}
    width, height = (side * (1 if len(names) <= _FEW_LINES else 1.35) for side in _PANEL)
    width, height = width * across + 0.3, height * down + 0.8
    columns = max(1, min(len(names), 2 * across, int(width / (_HANDLE + _CHARACTER * max(map(len, names))))))
    height += _LEGEND_ROW * max(0, math.ceil(len(names) / columns) - _FEW_ROWS)
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    axes = figure.subplots(down, across, sharey=True, squeeze=False).reshape(-1)
    for panel, task in zip(axes, panels, strict=False):
        _draw_panel(panel, result, task)
    for unused in axes[len(panels) :]:
        unused.set_visible(False)
    for panel in axes[::across]:
        panel.set_ylabel("accuracy (%)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, handlelength=3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw_panel(panel: Axes, result: Evaluation, task: str | None) -> None:
    axis = _axis(result)
    lines: dict[str, list[Setting]] = {}
    for setting in result.settings:
        lines.setdefault(setting.name, []).append(setting)
    policies = list(dict.fromkeys(setting.policy for setting in result.settings if setting.policy != "full"))
    variants = Counter(settings[0].policy for settings in lines.values())
    used = Counter[str]()
    for name, settings in lines.items():
        policy = settings[0].policy
        estimates = [result.accuracy(setting, task) for setting in settings]
        if policy == "full":
            value, low, high = (100 * each for each in estimates[0][:3])
            panel.axhline(
                value,
                color=_STOCK_COLOUR,
                linestyle=_STOCK_DASHES[used[policy] % 2],
                linewidth=1.2,
                label=name,
                zorder=1,
            )
            panel.axhspan(low, high, color=_STOCK_COLOUR, alpha=0.10, linewidth=0)
            used[policy] += 1
            continue
        place, variant = policies.index(policy), used[policy]
        used[policy] += 1
        _draw_line(
            panel,
            [axis.places[setting.budget] for setting in settings],
            [[100 * each[part] for each in estimates] for part in range(3)],
            name,
            _Look(
                _shade(_COLOURS[place % len(_COLOURS)], variant, variants[policy]),
                _MARKERS[(place + variant) % len(_MARKERS)],
                _DASHES[(variant + place // len(_COLOURS)) % len(_DASHES)],
                band=0.15 * min(1, _FEW_LINES / len(lines)),
            ),
            order=len(policies) - place,
        )
    n = len(result.scores(result.settings[0], task))
    panel.set_title(f"{'all tasks' if task is None else _plain(task)} (n = {n})", fontsize=11)
    panel.set_xscale("log")
    panel.minorticks_off()
    aslant = {"rotation": 60, "ha": "right", "rotation_mode": "anchor"} if _crowded(axis.ticks) else {}
    panel.set_xticks(list(axis.ticks), list(axis.ticks.values()), fontsize=9, **aslant)
    panel.set_xlim(min(axis.ticks) / _MARGIN, max(axis.ticks) * _MARGIN)
    panel.set_ylim(-3, 103)
    panel.set_xlabel("visual-token budget (log scale)")
    panel.grid(axis="y", color="#dddddd", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


class _Axis(NamedTuple):
    """Where each budget's points are, and what is written where (rising), in visual positions."""

    places: Mapping[str, float]
    ticks: Mapping[float, str]


def _axis(result: Evaluation) -> _Axis:
    """One tick for budgets of as many positions, or of nearly as many; their points lie side by side around it.

    Budgets of as many positions for the largest picture may differ for others: their points are never one.
    """
    budgets = dict.fromkeys(setting.budget for setting in result.settings)
    log = {budget: math.log(max(result.positions[budget], 0.5)) for budget in budgets}  # there is no logarithm of 0
    rising = sorted(budgets, key=log.__getitem__)
    aside = _ASIDE * (log[rising[-1]] - log[rising[0]] + 2 * math.log(_MARGIN))
    groups: list[list[str]] = []
    for budget in rising:
        if groups and log[budget] - log[groups[-1][0]] < aside:
            groups[-1].append(budget)
        else:
            groups.append([budget])
    middles = [math.fsum(log[budget] for budget in group) / len(group) for group in groups]
    gaps = [math.inf, *(right - left for left, right in pairwise(middles)), math.inf]
    places = {}
    for number, (group, middle) in enumerate(zip(groups, middles, strict=True)):
        step = min(aside, 0.6 * min(gaps[number : number + 2]) / len(group))  # clear of the neighbours' points
        for at, budget in enumerate(group):
            places[budget] = math.exp(middle + step * (at - (len(group) - 1) / 2))
    return _Axis(places, {math.exp(middle): " / ".join(group) for middle, group in zip(middles, groups, strict=True)})


def _crowded(ticks: Mapping[float, str]) -> bool:
    """Whether two labels would touch, side by side in type of 9 points (a character is some 0.08 inches wide)."""
    span = math.log(max(ticks) / min(ticks) * _MARGIN**2)
    return any(
        math.log(right / left) / span * (_PANEL[0] - 0.7) < 0.08 * (len(ticks[left]) + len(ticks[right]) + 1) / 2
        for left, right in pairwise(ticks)
    )


def _shade(colour: str, variant: int, variants: int) -> tuple[float, ...]:
    """From dark to light over the variants of one policy; the colour itself where there is one."""
    share = 0 if variants == 1 else -0.45 + 0.75 * variant / (variants - 1)
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    return tuple(part * (1 + share) if share < 0 else part + (1 - part) * share for part in parts)


def _draw_line(
    panel: Axes,
    positions: Sequence[float],
    values: Sequence[Sequence[float]],
    name: str,
    look: _Look,
    order: int,
) -> None:
    """`values`: accuracy, low and high of each position, in percent. A line of higher order is drawn over others."""
    points = sorted(zip(positions, *values, strict=True))
    x, value, low, high = ([point[part] for point in points] for part in range(4))
    stroke = {"color": look.colour, "linewidth": 1.6, "zorder": 3 + order}
    marker = {"marker": look.marker, "markersize": 6, "markeredgecolor": "white", "markeredgewidth": 0.5}
    panel.plot(x, value, linestyle=look.dashes, label=name, **marker, **stroke)
    if len(x) > 1:
        panel.fill_between(x, low, high, color=look.colour, alpha=look.band, linewidth=0, zorder=2)
    else:
        panel.vlines(x, low, high, **stroke)


def _plain(text: str) -> str:
    """A heading without what matplotlib would read as mathematics, and not too long."""
    line = " ".join(text.split()).replace("$", r"\$")
    return line if len(line) <= 40 else line[:39] + "…"
