"""What the demonstration model must reach, read from its committed reports.

A change that trains it anew, or that moves a policy, has to commit reports that still hold this.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from demo.reports import ACCURACY
from demo.training.bundle import BUNDLE
from hired_edge.bundle import read_manifest

REPORTS = (
    *("policies", "others", "positions", "changes", "newlines", "alpha", "alpha-placed", "allocation", "base"),
    *("fp32", "regression", "held-out-fonts", "long", "letters"),
)


def rows(name: str) -> dict[tuple[str, str, str], dict[str, Any]]:
    content = json.loads((ACCURACY / name / "report.json").read_text(encoding="utf-8"))
    assert content["bad_rows"] == []
    return {(row["policy"], row["budget"], row["task"]): row for row in content["rows"]}


@pytest.mark.parametrize("name", REPORTS)
def test_the_reports_are_of_the_committed_bundle(name: str) -> None:
    content = json.loads((ACCURACY / name / "report.json").read_text(encoding="utf-8"))
    assert content["run"]["manifest_digest"] == read_manifest(BUNDLE).digest


@pytest.mark.parametrize(("task", "floor"), [("find", 0.95), ("presence", 0.95), ("compare", 0.95), ("read", 0.9)])
def test_full_budget_reaches_its_floor(task: str, floor: float) -> None:
    assert rows("policies")["full", "100%", task]["accuracy"] >= floor


def test_a_fifth_of_the_tokens_reads_far_above_chance() -> None:
    """Two or three digits: 1 in 100 at best by guessing."""
    assert rows("policies")["hired", "20%", "read"]["low"] > 0.2


@pytest.mark.parametrize("budget", ["40%", "20%", "10%"])
def test_attention_reads_more_than_chance_and_evenness_do(budget: str) -> None:
    found = rows("policies")
    for baseline in ("random", "uniform"):
        assert found["hired", budget, "read"]["low"] > found[baseline, budget, "read"]["high"]
