"""The figure of an evaluation: where its points and labels are, and that no two lines look alike."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hired_edge.policies import POLICIES
from hired_runtime.evaluation import Evaluation, Question, Setting, settings_grid
from hired_runtime.evaluation.plots import draw

BUDGETS = {"100%": 320, "40%": 128, "20%": 64, "64": 64, "63": 63, "10%": 32, "5%": 16}
ALPHAS = ["0.1", "0.3", "0.5", "0.7", "0.9"]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is saved from now on."""
    saved: list[Figure] = []
    original = Figure.savefig

    def spy(figure: Figure, *args: Any, **options: Any) -> None:
        saved.append(figure)
        original(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", spy)
    return saved


def result(settings: list[Setting], positions: dict[str, int]) -> Evaluation:
    """The n-th key answers some n of twelve questions rightly: no two settings are equally good."""
    questions = [Question(line, "0.png", Path(f"{line}.png"), "?", ("yes",), "read") for line in range(12)]
    keys = list(dict.fromkeys(setting.key for setting in settings))
    texts = {key: ["yes" if line <= place % 12 else "no" for line in range(12)] for place, key in enumerate(keys)}
    return Evaluation(settings, questions, [], texts, {key: [1] * 12 for key in keys}, positions)


def drawn(figures: list[Figure], settings: list[Setting], positions: dict[str, int]) -> Axes:
    assert draw(result(settings, positions)).startswith(b"\x89PNG")
    figure = figures.pop()
    (panel,) = figure.axes
    below, inside = figure.legends[0].get_window_extent(), panel.get_window_extent()
    assert figure.bbox.x0 <= below.x0 <= below.x1 <= figure.bbox.x1, "the legend is whole"
    assert figure.bbox.y0 <= below.y0 <= below.y1 < inside.y0
    assert inside.height > 30
    return panel


def labels(panel: Axes) -> dict[float, str]:
    return {float(at): label.get_text() for at, label in zip(panel.get_xticks(), panel.get_xticklabels(), strict=True)}


def test_budgets_of_as_many_positions_share_a_tick_and_lie_side_by_side(figures: list[Figure]) -> None:
    panel = drawn(figures, settings_grid(["full", "hired", "random"], list(BUDGETS), ["0.5"]), BUDGETS)
    ticks = labels(panel)
    assert list(ticks.values()) == ["5%", "10%", "63 / 20% / 64", "40%", "100%"]
    assert list(ticks) == pytest.approx([16, 32, 63.7, 128, 320], rel=0.01)
    hired, random = (next(line for line in panel.lines if line.get_label() == name) for name in ("hired", "random"))
    x = np.asarray(hired.get_xdata(), float).tolist()
    assert x == np.asarray(random.get_xdata(), float).tolist()
    assert len(x) == 7
    assert all(right / left > 1.05 for left, right in pairwise(x)), "no part of a line is upright"
    assert x[2:5] == pytest.approx([63.7] * 3, rel=0.15)
    assert [x[at] for at in (0, 1, 5, 6)] == pytest.approx([16, 32, 128, 320])


def test_many_budgets_keep_their_order_and_their_labels_apart(figures: list[Figure]) -> None:
    budgets = {f"{percent}%": round(28.8 * percent) for percent in (*range(1, 41), 100)}
    panel = drawn(figures, settings_grid(["hired"], list(budgets), ["0.5"]), budgets)
    (line,) = panel.lines
    x = np.asarray(line.get_xdata(), float).tolist()
    assert x == pytest.approx(list(budgets.values()), rel=0.15)
    values = np.asarray(line.get_ydata(), float).tolist()
    found = result(settings_grid(["hired"], list(budgets), ["0.5"]), budgets)
    assert values == pytest.approx([100 * found.accuracy(Setting("hired", budget)).value for budget in budgets])
    assert " / ".join(labels(panel).values()) == " / ".join(budgets)
    assert all(label.get_rotation() > 0 for label in panel.get_xticklabels())


@pytest.mark.parametrize("positions", [{"0": 0, "1": 1}, {"20%": 0, "0": 0}, {"64": 64}])
def test_few_positions_and_none(positions: dict[str, int], figures: list[Figure]) -> None:
    panel = drawn(figures, settings_grid(["hired", "random"], list(positions), ["0.5"]), positions)
    assert " / ".join(labels(panel).values()) == " / ".join(positions)


def test_no_two_lines_look_alike(figures: list[Figure]) -> None:
    """Every policy at once: lines of one colour differ in their markers and in their dashes as well."""
    panel = drawn(figures, settings_grid(list(POLICIES), list(BUDGETS), ALPHAS), BUDGETS)
    looks = defaultdict(list)
    variants = defaultdict(list)
    for line in panel.lines:
        look = str(line.get_marker()), dashes(line)
        looks[line.get_color()].append(look)
        variants[str(line.get_label()).split(",")[0]].append((line.get_color(), look))
    with_alpha = sorted(name for name, policy in POLICIES.items() if policy.uses_alpha)
    assert len(panel.lines) == len(POLICIES) + (len(ALPHAS) - 1) * len(with_alpha)
    for shared in looks.values():
        for part in zip(*shared, strict=True):
            assert len(set(part)) == len(shared)
    assert sorted(name for name, lines in variants.items() if len(lines) > 1) == with_alpha
    for name in with_alpha:
        assert len({colour for colour, _ in variants[name]}) == len(ALPHAS), "from dark to light"
        assert len({marker for _, (marker, _) in variants[name]}) == len(ALPHAS)


def test_few_policies_have_a_colour_each(figures: list[Figure]) -> None:
    policies = ["full", "hired", "hired-2024", "random", "uniform", "top-cls", "scope"]
    panel = drawn(figures, settings_grid(policies, list(BUDGETS), ALPHAS), BUDGETS)
    assert len({line.get_color() for line in panel.lines}) == len(panel.lines) == 5 + 2 * len(ALPHAS)


def dashes(line: Line2D) -> str:
    """A line's pattern: its style's name alone is the same for all that are not solid."""
    return str(line._dash_pattern)  # type: ignore[attr-defined]
