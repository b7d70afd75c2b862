"""Accuracy against visual tokens: a data set's questions, answered at every policy and budget, with paired intervals.

from hired_runtime.evaluation import Setting, evaluate

result = evaluate("bundle", "questions", [Setting("full"), Setting("hired", "20%"), Setting("random", "20%")])
print(result.accuracy(Setting("hired", "20%"), task="read"))
print(result.difference(Setting("hired", "20%"), Setting("random", "20%"), task="read"))

Nothing here needs matplotlib; only `plots` imports it, when it draws.
"""

from __future__ import annotations

from hired_edge.questions import BadRow, Question, read_dataset
from hired_runtime.evaluation.intervals import Estimate
from hired_runtime.evaluation.metrics import METRICS
from hired_runtime.evaluation.result import Evaluation
from hired_runtime.evaluation.runner import evaluate
from hired_runtime.evaluation.settings import Setting, settings_grid

__all__ = [
    "METRICS",
    "BadRow",
    "Estimate",
    "Evaluation",
    "Question",
    "Setting",
    "evaluate",
    "read_dataset",
    "settings_grid",
]
