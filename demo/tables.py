"""`python -m demo.tables`: writes the figures of demo/accuracy into README.md and demo/README.md.

A table stands between `<!-- figures: NAME -->` and `<!-- end of figures -->`; what is there is replaced. `make test`
notices a figure that no report has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from demo.scenes.questions import TASKS

ROOT = Path(__file__).resolve().parent.parent
ACCURACY = ROOT / "demo/accuracy"
PAGES = (ROOT / "README.md", ROOT / "demo/README.md")
_PLACE = re.compile(r"(<!-- figures: (\S+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)

POLICIES = {"full": "all tokens", "hired": "`hired`", "hired-2024": "`hired-2024`", "top-cls": "`top-cls`"} | {
    name: f"`{name}`" for name in ("uniform", "random")
}


class Report:
    """A `report.json`, by setting and task."""

    def __init__(self, name: str) -> None:
        content = json.loads((ACCURACY / name / "report.json").read_text(encoding="utf-8"))
        self.facts = content["run"]
        self._rows = {(row["policy"], row["budget"], row["alpha"], row["task"]): row for row in content["rows"]}

    def cells(self, policy: str, budget: str, alpha: float | None = None) -> list[str]:
        """Accuracies of each task with their intervals, in %."""
        if alpha is None and policy.startswith("hired"):
            alpha = 0.5
        rows = [self._rows[policy, budget, alpha, task] for task in TASKS]
        return [f"{100 * row['accuracy']:.0f} ({100 * row['low']:.0f}-{100 * row['high']:.0f})" for row in rows]

    def plain(self, policy: str, budget: str) -> list[str]:
        """The same without intervals."""
        return [cell.split(" ")[0] for cell in self.cells(policy, budget)]


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def budgets() -> str:
    """What `hired` keeps of each task, and what a random choice of as many tokens keeps of reading."""
    report = Report("policies")
    rows = [["100 %", *report.cells("full", "100%"), report.plain("full", "100%")[0]]]
    for budget in ("40%", "20%", "10%"):
        random = report.plain("random", budget)[TASKS.index("read")]
        rows.append([budget.replace("%", " %"), *report.cells("hired", budget), random])
    return _table(["budget", *TASKS, "read, tokens at random"], rows)


def policies() -> str:
    """Every policy at every budget."""
    report = Report("policies")
    rows = [["100 %", POLICIES["full"], *report.cells("full", "100%")]]
    for budget in ("40%", "20%", "10%", "5%"):
        for policy in ("hired", "hired-2024", "top-cls", "uniform", "random"):
            rows.append([budget.replace("%", " %"), POLICIES[policy], *report.cells(policy, budget)])
    return _table(["budget", "policy", *TASKS], rows)


def alphas() -> str:
    """The base picture's share of 20 %; and the whole base picture alone, without any tile."""
    report = Report("alpha")
    rows = [[f"{alpha:g}", *report.cells("hired", "20%", alpha)] for alpha in (0.0, 0.25, 0.5, 0.75, 1.0)]
    rows.append(["base picture alone, 64 tokens", *report.cells("hired", "64", 1.0)])
    return _table(["alpha at 20 %", *TASKS], rows)


def newlines() -> str:
    """`hired` with and without the newlines of the mosaic's rows."""
    with_them, without = Report("policies"), Report("no-newlines")
    rows = []
    for budget in ("40%", "20%", "10%", "5%"):
        shown = budget.replace("%", " %")
        rows.append([shown, "kept rows (default)", *with_them.cells("hired", budget)])
        rows.append([shown, "none", *without.cells("hired", budget)])
    return _table(["budget", "newlines", *TASKS], rows)


def precisions() -> str:
    """fp32 beside int8 and int4."""
    reports = {"fp32": Report("policies"), "int8": Report("int8"), "int4": Report("int4")}
    rows = [["100 %", name, *report.cells("full", "100%")] for name, report in reports.items()]
    rows += [
        [budget.replace("%", " %"), name, *report.cells("hired", budget)]
        for budget in ("40%", "20%", "10%")
        for name, report in reports.items()
    ]
    return _table(["budget", "precision", *TASKS], rows)


def strangers() -> str:
    """Codes that training never showed."""
    kinds = {"held-out-fonts": "two held-out typefaces", "long": "four digits", "letters": "digits and letters"}
    rows = []
    for name, what in kinds.items():
        report = Report(name)
        rows.append([what, report.cells("full", "100%")[0], report.cells("hired", "20%")[0]])
    return _table(["read, codes of", "100 %", "`hired` 20 %"], rows)


TABLES = {
    "budgets": budgets,
    "policies": policies,
    "alphas": alphas,
    "newlines": newlines,
    "precisions": precisions,
    "strangers": strangers,
}


def filled(text: str) -> str:
    """The page with its tables as the reports have them."""
    return _PLACE.sub(lambda match: match[1] + "\n" + TABLES[match[2]]() + "\n" + match[3], text)


def main() -> None:
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
