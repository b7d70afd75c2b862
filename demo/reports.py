"""The committed reports of demo/accuracy, read back, and what tables of several pages need."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from demo.scenes.questions import TASKS
from hired_edge.policies import policy_named

ROOT = Path(__file__).resolve().parent.parent
ACCURACY = ROOT / "demo/accuracy"
ALL = None
"""In place of a task: all of them together."""


class Report:
    """A `report.json`, by setting and task."""

    def __init__(self, name: str) -> None:
        content = json.loads((ACCURACY / name / "report.json").read_text(encoding="utf-8"))
        self.facts: Mapping[str, Any] = content["run"]
        overall = content.get("all_tasks", {"rows": [], "differences": []})
        self.rows: Sequence[Mapping[str, Any]] = [*content["rows"], *overall["rows"]]
        self.differences: Sequence[Mapping[str, Any]] = [*content["differences"], *overall["differences"]]

    def row(self, policy: str, budget: str, task: str | None, **more: Any) -> Mapping[str, Any]:
        """The row of a setting. `more`: alpha, newlines, partitions, positions, where they are not the policy's own."""
        (found,) = (row for row in self.rows if _is(row, policy, budget, task, more))
        return found

    def difference(
        self, policy: str, budget: str, task: str | None, against: str = "hired", **more: Any
    ) -> Mapping[str, Any]:
        """The paired difference of a setting to `against`, which is "hired" or "full"."""
        (found,) = (
            row
            for row in self.differences
            if _is(row, policy, budget, task, more) and row["against"]["policy"] == against
        )
        return found

    def cells(self, policy: str, budget: str, tasks: Sequence[str | None] = TASKS, **more: Any) -> list[str]:
        """Accuracies of each task with their intervals, in %."""
        return [percent(self.row(policy, budget, task, **more)) for task in tasks]

    def plain(self, policy: str, budget: str, tasks: Sequence[str | None] = TASKS, **more: Any) -> list[str]:
        """The same without intervals."""
        return [cell.split(" ")[0] for cell in self.cells(policy, budget, tasks, **more)]


def _is(row: Mapping[str, Any], policy: str, budget: str, task: str | None, more: Mapping[str, Any]) -> bool:
    usual = {"alpha": row["alpha"] if row["alpha"] is None else 0.5, "newlines": None, "partitions": "all"}
    placed = "compact" if budget == "100%" else policy_named(policy).positions
    wanted = {"policy": policy, "budget": budget, "task": task, **usual, "positions": placed, **more}
    return all(row[key] == value for key, value in wanted.items())


def percent(row: Mapping[str, Any]) -> str:
    """ "87 (83-90)"."""
    return f"{100 * row['accuracy']:.0f} ({100 * row['low']:.0f}-{100 * row['high']:.0f})"


def points(row: Mapping[str, Any]) -> str:
    """ "+3.0 (+0.8 to +5.3)", in bold where the interval excludes 0."""
    text = f"{100 * row['difference']:+.1f} ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})"
    return f"**{text}**" if row["low"] > 0 or row["high"] < 0 else text


def spaced(budget: str) -> str:
    """ "40 %"."""
    return budget.replace("%", " %")


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
