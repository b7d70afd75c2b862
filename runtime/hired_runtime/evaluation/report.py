"""An evaluation as files: `report.json` for programs, `report.md` for people, `accuracy.png` in it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hired_runtime.evaluation.files import JSON, MARKDOWN, PLOT, write_together
from hired_runtime.evaluation.intervals import LEVEL, Estimate
from hired_runtime.evaluation.plots import draw
from hired_runtime.evaluation.result import Evaluation
from hired_runtime.evaluation.settings import Setting

ALL_TASKS = "all tasks"


def report(result: Evaluation) -> dict[str, Any]:
    """The content of `report.json`: {rows, differences, bad_rows, run}; of all tasks together, where there are several,
    `all_tasks`: {rows, differences}."""
    overall = {"rows": result.rows([None]), "differences": result.differences([None])}
    return {
        "rows": result.rows(),
        "differences": result.differences(),
        **({"all_tasks": overall} if len(result.tasks) > 1 else {}),
        "bad_rows": [{"line": row.line, "reason": row.reason} for row in result.bad_rows],
        "run": {**result.facts, "interval_level": LEVEL},
    }


def write(result: Evaluation, folder: Path) -> dict[str, Any]:
    """Writes the three files into `folder`, all or none, and returns the content of `report.json`.

    Raises:
        InputError: a file cannot be written.
        ModuleNotFoundError: matplotlib is not installed.
    """
    content = report(result)
    write_together(
        {
            folder / PLOT: draw(result),
            folder / JSON: (json.dumps(content, indent=1, allow_nan=False) + "\n").encode(),
            folder / MARKDOWN: markdown(result, content).encode(),
        }
    )
    return content


def markdown(result: Evaluation, content: dict[str, Any]) -> str:
    """The page for people."""
    run = content["run"]
    parts = [
        f"# Accuracy of {_escaped(run['bundle'])} against its visual tokens",
        f"{run['questions']} questions about {run['pictures']} pictures; metric: {run['metric']}. Accuracy in %, in "
        f"brackets its {100 * LEVEL:.0f} % interval (bootstrap over pictures, percentiles of {run['resamples']}).",
        f"![Accuracy against budget, a panel for each task]({PLOT})",
    ]
    for task in sections(result):
        n = len(result.scores(result.settings[0], task))
        parts.append(f"## {_escaped(ALL_TASKS if task is None else task)} ({n} questions)")
        parts.append(_table(accuracies(result, task)))
        if figures := summaries(result, task):
            parts += ["Over the set, in %:", _table(figures)]
    parts += ["## Differences whose interval excludes 0", _differences(content["differences"])]
    parts += [f"## Bad rows: {len(result.bad_rows)}"]
    if result.bad_rows:
        parts.append(_table([["line", "reason"], *([str(row.line), row.reason] for row in result.bad_rows)]))
    facts = [[name.replace("_", " "), "none" if value is None else str(value)] for name, value in run.items()]
    parts += ["## The run", _table([["what", "value"], *facts])]
    return "\n\n".join(parts) + "\n"


def sections(result: Evaluation) -> list[str | None]:
    """The tasks, and None for all of them together where there are several."""
    return [*result.tasks, *([None] if len(result.tasks) > 1 else [])]


def accuracies(result: Evaluation, task: str | None) -> list[list[str]]:
    """A table with a heading: policies down, budgets across, as they were asked for."""
    budgets = list(dict.fromkeys(setting.budget for setting in result.settings))
    cells = {(each.name, each.budget): _percent(result.accuracy(each, task)) for each in result.settings}
    names = dict.fromkeys(setting.name for setting in result.settings)
    return [["policy", *budgets], *([name, *(cells.get((name, budget), "") for budget in budgets)] for name in names)]


def summaries(result: Evaluation, task: str | None) -> list[list[str]]:
    """A table with a heading: settings down, the metric's figures of the whole set across; empty without any."""
    found = {setting: result.summary(setting, task) for setting in result.settings}
    names = list(next(iter(found.values())))
    if not names:
        return []
    rows = [
        [setting.name, setting.budget, *("undefined" if each is None else _percent(each) for each in figures.values())]
        for setting, figures in found.items()
    ]
    return [["policy", "budget", *(name.replace("_", " ") for name in names)], *rows]


def _percent(estimate: Estimate) -> str:
    value, low, high = (100 * each for each in estimate[:3])
    return f"{value:.1f} ({low:.1f}-{high:.1f})"


def _differences(rows: Sequence[dict[str, Any]]) -> str:
    clear = [row for row in rows if row["low"] > 0 or row["high"] < 0]
    if not clear:
        return "None."
    heading = ["task", "setting", "against", "difference in points", "questions"]
    return _table(
        [heading]
        + [
            [
                row["task"],
                _name(row),
                _name(row["against"]),
                f"{100 * row['difference']:+.1f} ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})",
                str(row["n"]),
            ]
            for row in clear
        ]
    )


def _name(row: dict[str, Any]) -> str:
    alpha = 0.5 if row["alpha"] is None else row["alpha"]
    setting = Setting(row["policy"], row["budget"], alpha, row["newlines"], row["partitions"], row["positions"])
    policy, comma, rest = setting.name.partition(",")
    return f"{policy} {setting.budget}{comma}{rest}"


def _table(rows: Iterable[Sequence[str]]) -> str:
    heading, *rest = ["| " + " | ".join(map(_escaped, row)) + " |" for row in rows]
    return "\n".join([heading, "|" + "---|" * (heading.count(" | ") + 1), *rest])


def _escaped(text: str) -> str:
    """One line that Markdown shows as it is."""
    line = " ".join(text.split())
    return "".join(f"\\{character}" if character in "\\`*_[]<>|#" else character for character in line)
