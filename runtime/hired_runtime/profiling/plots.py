"""A profile's pictures: where the time goes, how soon and how fast it answers, what it holds in memory. SVG.

The only module here that draws; it needs matplotlib (the `eval` extra), and only once a function is called. Budgets
are rows, so that their names never meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from hired_runtime.pipeline import STAGES
from hired_runtime.profiling.schema import BudgetProfile, Profile
from hired_runtime.profiling.spread import Statistics
from hired_runtime.profiling.svg import GRID, INK, inline, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which the colour-blind can tell apart; these six stand out on white and on near black.
_COLOURS = ("#E69F00", "#56B4E9", "#CC79A7", "#D55E00", "#009E73", "#0072B2")
_WIDTH = 7.2  # inches
_ROOM = 1.16  # the axis goes on to this many times the longest bar, for the number behind it
_MIB = 2**20
_Place = Literal["outside upper left", "outside upper right"]


class _Bars(NamedTuple):
    """A bar for each budget. `ends`: where a whisker begins and ends, None for none."""

    name: str
    colour: str
    values: Sequence[float]
    ends: Sequence[tuple[float, float]] | None = None


def stages(profile: Profile) -> str:
    """Mean time of each stage, stacked, a row a budget. Means, because they add up."""
    with style():
        figure, (panel,) = _figure(profile, 1, 1)
        left = [0.0] * len(profile.budgets)
        for name, colour in zip(STAGES, _COLOURS, strict=False):
            values = [each.timings_ms[name].mean for each in profile.budgets]
            panel.barh(range(len(left)), values, left=left, height=0.62, color=colour, label=name)
            left = [a + b for a, b in zip(left, values, strict=True)]
        for row, total in enumerate(left):
            _write_value(panel, total, row, max(left))
        _finish(panel, profile, "ms of a request (means)", max(left))
        _legend(figure, panel)
        return inline(figure, "stages", "Bars: mean milliseconds of each stage, stacked, for each budget")


def speed(profile: Profile) -> str:
    """Time to first token, and tokens a second: medians, with whiskers from the fastest to the 95th percentile."""
    with style():
        rates = [("whole request", "#009E73", [each.tokens_per_s for each in profile.budgets])]
        decoding = [each.decode_tokens_per_s for each in profile.budgets if each.decode_tokens_per_s is not None]
        if len(decoding) == len(profile.budgets):
            rates.append(("decoding alone", "#56B4E9", decoding))
        figure, (first, second) = _figure(profile, 2, len(rates))
        _draw(first, profile, [_median_bars("", "#D55E00", [each.timings_ms["ttft"] for each in profile.budgets])])
        first.set_xlabel("time to first token, ms")
        _draw(second, profile, [_median_bars(*rate) for rate in rates])
        second.set_xlabel("tokens/s")
        second.set_yticklabels([])
        _legend(figure, second, "outside upper right")
        return inline(figure, "speed", "Bars: median time to first token and median tokens per second, for each budget")


def memory(profile: Profile) -> str:
    """The weights' files, the cache and the process's peak, in MiB; on a GPU of its own memory, that as well."""
    budgets = profile.budgets
    bars = [
        _Bars("weights (files)", "#0072B2", [profile.bundle.weights_bytes / _MIB] * len(budgets)),
        _Bars("key-value cache", "#E69F00", [each.cache_bytes / _MIB for each in budgets]),
        _Bars("process peak", "#CC79A7", [each.memory.process_peak_bytes / _MIB for each in budgets]),
    ]
    gpus = [_gpu_mib(each) for each in budgets]
    known = [value for value in gpus if value is not None]
    if len(known) == len(gpus):
        bars.append(_Bars("GPU peak above base", "#009E73", known))
    with style():
        figure, (panel,) = _figure(profile, 1, len(bars))
        _draw(panel, profile, bars)
        panel.set_xlabel("MiB")
        _legend(figure, panel)
        return inline(figure, "memory", "Bars: weights, key-value cache and peak of the process, for each budget")


def _gpu_mib(budget: BudgetProfile) -> float | None:
    base, peak = budget.memory.gpu
    return None if base is None or peak is None else (peak - base) / _MIB


def _median_bars(name: str, colour: str, statistics: Sequence[Statistics]) -> _Bars:
    return _Bars(name, colour, [each.median for each in statistics], [(each.min, each.p95) for each in statistics])


def _figure(profile: Profile, across: int, bars: int) -> tuple[Figure, Sequence[Axes]]:
    """`bars`: of each budget, at most."""
    from matplotlib.figure import Figure

    height = len(profile.budgets) * (0.26 + 0.22 * bars) + 1.15
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    panels = figure.subplots(1, across, squeeze=False, gridspec_kw={"wspace": 0.06})[0]
    return figure, panels


def _draw(panel: Axes, profile: Profile, bars: Sequence[_Bars]) -> None:
    """Bars side by side in each budget's row, each with its number behind it."""
    thick = 0.74 / len(bars)
    longest = max(max([*each.values, *(high for _, high in each.ends or [])]) for each in bars)
    for place, each in enumerate(bars):
        rows = [row + thick * (place - (len(bars) - 1) / 2) for row in range(len(each.values))]
        panel.barh(rows, each.values, height=0.9 * thick, color=each.colour, label=each.name)
        for row, value, (low, high) in zip(rows, each.values, each.ends or [(0.0, 0.0)] * len(rows), strict=True):
            if each.ends is not None:
                panel.hlines(row, low, high, color=INK, linewidth=1.1)
            _write_value(panel, value, row, longest, max(value, high))
    _finish(panel, profile, "", longest)


def _write_value(panel: Axes, value: float, row: float, longest: float, behind: float | None = None) -> None:
    at = value if behind is None else behind
    panel.text(at + 0.012 * longest, row, _short(value), va="center", ha="left", fontsize=9)


def _finish(panel: Axes, profile: Profile, label: str, longest: float) -> None:
    names = [f"{each.budget}\n{each.visual.kept + each.visual.newlines} tokens" for each in profile.budgets]
    panel.set_yticks(range(len(names)), names)
    panel.set_ylim(len(names) - 0.5, -0.5)  # the first budget on top
    panel.set_xlim(0, _ROOM * longest or 1)
    panel.ticklabel_format(axis="x", style="plain")
    panel.locator_params(axis="x", nbins=4)
    panel.set_xlabel(label)
    panel.grid(axis="x", color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(length=0)
    panel.spines[["top", "right", "bottom"]].set_visible(False)


def _legend(figure: Figure, panel: Axes, place: _Place = "outside upper left") -> None:
    handles, labels = panel.get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(handles, labels, loc=place, ncols=len(labels), frameon=False, handlelength=1.2)


def _short(value: float) -> str:
    """Three digits that count, and never an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
