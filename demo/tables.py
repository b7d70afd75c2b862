"""`python -m demo.tables`: writes the figures of demo/accuracy into README.md and demo/README.md.

A table stands between `<!-- figures: NAME -->` and `<!-- end of figures -->`; what is there is replaced. `make test`
notices a figure that no report has.
"""

from __future__ import annotations

import re

from demo.measuring.tables import TABLES as ACCURACY_TABLES
from demo.reports import ROOT, Report, spaced, table
from demo.scenes.questions import TASKS

PAGES = (ROOT / "README.md", ROOT / "demo/README.md", ROOT / "docs/accuracy.md")
_PLACE = re.compile(r"(<!-- figures: (\S+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)


def budgets() -> str:
    """What `hired` keeps of each task, and what a random choice of as many tokens keeps of reading."""
    report = Report("policies")
    rows = [["100 %", *report.cells("full", "100%"), report.plain("full", "100%")[0]]]
    for budget in ("40%", "20%", "10%"):
        random = report.plain("random", budget)[TASKS.index("read")]
        rows.append([spaced(budget), *report.cells("hired", budget), random])
    return table(["budget", *TASKS, "read, tokens at random"], rows)


def policies() -> str:
    """Every policy at every budget."""
    report = Report("policies")
    rows = [["100 %", "all tokens", *report.cells("full", "100%")]]
    for budget in ("40%", "20%", "10%", "5%"):
        for policy in ("hired", "hired-placed", "hired-2024", "top-cls", "uniform", "random"):
            rows.append([spaced(budget), f"`{policy}`", *report.cells(policy, budget)])
    return table(["budget", "policy", *TASKS], rows)


def alphas() -> str:
    """The base picture's share of 20 %; and the whole base picture alone, without any tile."""
    report = Report("alpha")
    rows = [[f"{alpha:g}", *report.cells("hired", "20%", alpha=alpha)] for alpha in (0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0)]
    rows.append(["base picture alone, 64 tokens", *Report("base").cells("full", "100%", partitions="base")])
    return table(["alpha at 20 %", *TASKS], rows)


def newlines() -> str:
    """`hired` with and without the newlines of the mosaic's rows."""
    report = Report("newlines")
    rows = []
    for budget in ("40%", "20%", "10%", "5%"):
        shown = spaced(budget)
        rows.append([shown, "kept rows (default)", *report.cells("hired", budget)])
        rows.append([shown, "none", *report.cells("hired", budget, newlines="none")])
    return table(["budget", "newlines", *TASKS], rows)


def precisions() -> str:
    """fp32 beside int8 and int4."""
    reports = {"fp32": Report("fp32"), "int8": Report("int8"), "int4": Report("int4")}
    rows = [["100 %", name, *report.cells("full", "100%")] for name, report in reports.items()]
    rows += [
        [spaced(budget), name, *report.cells("hired", budget)]
        for budget in ("40%", "20%", "10%")
        for name, report in reports.items()
    ]
    return table(["budget", "precision", *TASKS], rows)


def strangers() -> str:
    """Codes that training never showed."""
    kinds = {"held-out-fonts": "two held-out typefaces", "long": "four digits", "letters": "digits and letters"}
    rows = []
    for name, what in kinds.items():
        report = Report(name)
        rows.append([what, report.cells("full", "100%")[0], report.cells("hired", "20%")[0]])
    return table(["read, codes of", "100 %", "`hired` 20 %"], rows)


TABLES = {
    "budgets": budgets,
    "policies": policies,
    "alphas": alphas,
    "newlines": newlines,
    "precisions": precisions,
    "strangers": strangers,
    **ACCURACY_TABLES,
}


def filled(text: str) -> str:
    """The page with its tables as the reports have them."""
    return _PLACE.sub(lambda match: match[1] + "\n" + TABLES[match[2]]() + "\n" + match[3], text)


def main() -> None:
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
