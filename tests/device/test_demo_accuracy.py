"""The demonstration model answers as well as it did: at full budget, and with 20 % of the visual tokens.

The recorded figures are those of
    python -m demo.scenes --seed 1001 --count 40 --out questions
    hired-edge eval demo/bundle questions --policies full,hired,random --budgets 100%,20% --report DIR
whose report.json is demo/accuracy/regression/report.json.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from demo.scenes.__main__ import write
from demo.scenes.questions import TASKS
from hired_runtime.evaluation import Evaluation, Setting, evaluate

DEMO = Path(__file__).resolve().parents[2] / "demo"
FULL, HIRED, RANDOM = Setting("full"), Setting("hired", "20%"), Setting("random", "20%")
RECORDED = {
    (row["policy"], row["budget"], row["task"]): row
    for row in json.loads((DEMO / "accuracy/regression/report.json").read_text(encoding="utf-8"))["rows"]
}


def wilson_low(accuracy: float, n: int, z: float = 1.96) -> float:
    """The lower end of Wilson's interval: a bootstrap's is a point where every answer was right."""
    centre, spread = accuracy + z * z / (2 * n), z * math.sqrt(accuracy * (1 - accuracy) / n + z * z / (4 * n * n))
    return (centre - spread) / (1 + z * z / n)


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    folder = tmp_path_factory.mktemp("questions") / "seed-1001"
    write(folder, seed=1001, count=40)
    return evaluate(DEMO / "bundle", folder, [FULL, HIRED, RANDOM])


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("setting", [FULL, HIRED], ids=["full", "hired-20%"])
def test_accuracy_has_not_fallen_below_the_recorded_interval(evaluation: Evaluation, setting: Setting, task: str):
    recorded, now = RECORDED[setting.policy, setting.budget, task], evaluation.accuracy(setting, task)
    assert not evaluation.bad_rows
    assert now.n == recorded["n"]
    assert now.value >= min(recorded["low"], wilson_low(recorded["accuracy"], recorded["n"]))


def test_hired_reads_more_codes_than_random_at_the_same_budget(evaluation: Evaluation):
    assert evaluation.difference(HIRED, RANDOM, "read").low > 0
