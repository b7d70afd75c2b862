"""The tables of docs/accuracy.md, from the reports of demo/accuracy."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from demo.measuring.across import NAME as ACROSS
from demo.measuring.runs import BUDGETS, HEADS, LONGEST, OTHERS, PAPER, PLACED
from demo.reports import ACCURACY, ALL, Report, points, spaced, table
from demo.scenes.questions import TASKS

COLUMNS = (*TASKS, ALL)
HEADING = (*TASKS, "all tasks")
MERGING = ("prumerge", "prumerge+")


def accuracies() -> str:
    """In the shape of the paper's Table 3: every policy at every budget, each task."""
    policies, others, merging = Report("policies"), Report("others"), Report("prumerge")
    rows = [_row("100 %", "all tokens", policies, "full", "100%")]
    for budget in BUDGETS:
        rows += [_row(spaced(budget), f"`{policy}`", policies, policy, budget) for policy in PAPER]
        rows += [_row(spaced(budget), f"`{policy}`", others, policy, budget) for policy in OTHERS]
    rows += [_row("its own", f"`{policy}`", merging, policy, LONGEST) for policy in MERGING]
    return table(["budget", "policy", "tokens", *HEADING], rows)


def _row(shown: str, name: str, report: Report, policy: str, budget: str, **more: Any) -> list[str]:
    tokens = report.row(policy, budget, ALL, **more)["visual_tokens"]["mean"]
    return [shown, name, f"{tokens:.0f}", *report.cells(policy, budget, COLUMNS, **more)]


def against_hired() -> str:
    """Every policy's difference to `hired` at the same budget, all tasks together."""
    rows = []
    for name, policies in (("policies", PAPER[1:]), ("others", OTHERS)):
        report = Report(name)
        for policy in policies:
            rows.append([f"`{policy}`", *(points(report.difference(policy, budget, ALL)) for budget in BUDGETS)])
    return table(["less `hired`, points", *map(spaced, BUDGETS)], rows)


def by_task() -> str:
    """The same at 20 %, task by task."""
    rows = []
    for name, policies in (("policies", PAPER[1:]), ("others", OTHERS)):
        report = Report(name)
        for policy in policies:
            rows.append([f"`{policy}`", *(points(report.difference(policy, "20%", task)) for task in TASKS)])
    return table(["less `hired` at 20 %, points", *TASKS], rows)


def positions() -> str:
    """`hired` with original positions less `hired`, task by task."""
    report = Report("policies")
    return table(
        ["`hired-placed` less `hired`, points", *HEADING],
        [
            [spaced(budget), *(points(report.difference("hired-placed", budget, task)) for task in COLUMNS)]
            for budget in BUDGETS
        ],
    )


def positions_of_others() -> str:
    """Every policy with compact and with original positions, all tasks together."""
    report, rows = Report("positions"), []
    for policy in PLACED:
        for kind in ("compact", "original"):
            cells = (report.cells(policy, budget, [ALL], positions=kind)[0] for budget in BUDGETS)
            rows.append([f"`{policy}`", kind, *cells])
    return table(["policy", "positions", *map(spaced, BUDGETS)], rows)


def changes() -> str:
    """What was tried beyond the paper, less `hired` at the same budget."""
    report, rows_report = Report("changes"), Report("newlines")
    rows = [
        ["original positions (`hired-placed`)", report, "hired-placed", {}],
        ["a coverage term (`hired-covering`)", report, "hired-covering", {}],
        ["merging what is dropped (`hired-merging`)", report, "hired-merging", {}],
        ["a newline behind every row (`--newlines all-rows`)", rows_report, "hired", {"newlines": "all-rows"}],
        ["no newlines (`--newlines none`)", rows_report, "hired", {"newlines": "none"}],
    ]
    lines = []
    for shown, source, policy, more in rows:
        refused = BUDGETS[3:] if more.get("newlines") == "all-rows" else ()
        cells = ["" if b in refused else points(source.difference(policy, b, ALL, **more)) for b in BUDGETS]
        lines.append([shown, *cells])
    return table(["less `hired`, points", *map(spaced, BUDGETS)], lines)


def alphas() -> str:
    """Alpha at 20 %, `hired` and with original positions."""
    rows = []
    compact, placed = Report("alpha"), Report("alpha-placed")
    for tenth in range(11):
        alpha = tenth / 10
        cells = compact.cells("hired", "20%", COLUMNS, alpha=alpha)
        rows.append([f"{alpha:g}", *cells, *placed.cells("hired-placed", "20%", [ALL], alpha=alpha)])
    return table(["alpha at 20 %", *HEADING, "all tasks, `hired-placed`"], rows)


def table_5() -> str:
    """The paper's Table 5: allocation, layer and heads, less `hired` at the same budget."""
    report, across = Report("allocation"), _across()
    budgets = BUDGETS[:3]
    rows = [
        ["allocation: every partition the same share of its patches (`top-cls`)", report, "top-cls"],
        ["allocation: evenly among the sub-images (`hired-even`)", report, "hired-even"],
        ["allocation: by the last layer (`hired-allocated-by-last`)", report, "hired-allocated-by-last"],
        ["dropping: by the first layer (`hired-dropped-by-first`)", report, "hired-dropped-by-first"],
    ]
    lines = [
        [shown, *(points(source.difference(policy, budget, ALL)) for budget in budgets)]
        for shown, source, policy in rows
    ]
    lines.append(
        ["dropping: by a middle layer (layer 2 of 5)", *(points(across("middle", budget, ALL)) for budget in budgets)]
    )
    for head in range(HEADS):
        lines.append([f"head {head} alone", "", points(across(f"head-{head}", "20%", ALL)), ""])
    return table(["less `hired`, points", *map(spaced, budgets)], lines)


def _across() -> Callable[[str, str, str | None], Mapping[str, Any]]:
    rows: Sequence[Mapping[str, Any]] = json.loads((ACCURACY / ACROSS).read_text(encoding="utf-8"))["differences"]
    found = {(row["run"], row["policy"], row["budget"], row["task"]): row for row in rows}
    return lambda run, budget, task: found[run, "hired", budget, task]


def base_alone() -> str:
    """The paper's Table 6: the base picture alone."""
    report = Report("base")
    rows = [_row("all tokens, tiles too", "100 %", report, "full", "100%")]
    rows.append(_row("base picture", "100 %", report, "full", "100%", partitions="base"))
    for budget in ("40%", "20%"):
        rows.append(_row("base picture", spaced(budget), report, "hired", budget, partitions="base"))
    return table(["what is seen", "budget", "tokens", *HEADING], rows)


def cost() -> str:
    """What a budget costs on the machine that `make accuracy` ran on."""
    profile = json.loads((ACCURACY / "cost/profile.json").read_text(encoding="utf-8"))
    rows = []
    for each in profile["budgets"]:
        ms = each["timings_ms"]
        stages = [f"{ms[name]['median']:.1f}" for name in ("vision", "select", "prefill", "ttft")]
        size = f"{each['cache_bytes'] / 2**20:.2f}"
        rows.append([spaced(each["budget"]), str(each["max_sequence_length"]), size, *stages])
    return table(["budget", "M", "cache, MiB", "vision, ms", "select", "prefill", "first token"], rows)


def speed() -> str:
    """Time of every policy for the largest picture of a full-size model."""
    content = json.loads((ACCURACY / "speed.json").read_text(encoding="utf-8"))
    rows = []
    for row in content["policies"]:
        merging = f"{row['merge_ms']:.1f}" if row["merge_ms"] else ""
        exact = "" if row["as_exact"] is None else f"{100 * row['as_exact']:.0f} %"
        rows.append([f"`{row['policy']}`", f"{row['ms']:.1f}", merging, str(row["kept"]), exact])
    return table(["policy", "selection, ms", "merging, ms", "visual tokens", "as with exact cosines"], rows)


TABLES = {
    "accuracies": accuracies,
    "against-hired": against_hired,
    "by-task": by_task,
    "positions": positions,
    "positions-of-others": positions_of_others,
    "changes": changes,
    "alphas-and-places": alphas,
    "table-5": table_5,
    "base-alone": base_alone,
    "cost": cost,
    "speed": speed,
}
