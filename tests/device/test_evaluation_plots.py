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
    return Evaluation(settings, questions, [], texts, positions)


def drawn(figures: list[Figure], settings: list[Setting], positions: dict[str, int]) -> Axes:
    assert draw(result(settings, positions)).startswith(b"\x89PNG")
    (panel,) = figures.pop().axes
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
    panel = drawn(figures, settings_grid(list(POLICIES), list(BUDGETS), ALPHAS), BUDGETS)
    looks = defaultdict(list)
    variants = defaultdict(set)
    for line in panel.lines:
        name = str(line.get_label())
        colour, marker = line.get_color(), line.get_marker()
        looks[colour, marker, str(line.get_linestyle())].append(name)
        variants[name.split(",")[0]].add(marker)
    assert len(looks) == len(panel.lines) == 14  # full, two of five alphas, three without
    assert {name: len(markers) for name, markers in variants.items() if len(markers) > 1} == {
        "hired": 5,
        "hired-2024": 5,
    }
    assert len({colour for colour, _, _ in looks}) == 14
