"""What no single report has: differences between bundles, and the tokens of single pictures.

Bundles that were asked the same questions at the same settings are compared question by question, as
`hired_runtime.evaluation` compares settings. Writes demo/accuracy/across.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hired_runtime.evaluation import Estimate, Evaluation, Setting
from hired_runtime.evaluation.intervals import interval, resampled_means
from hired_runtime.whole import whole

NAME = "across.json"
PAIRS = (
    ("allocation", ("middle", "head-0", "head-1", "head-2", "head-3", "head-4")),
    ("fp32", ("int8", "int4")),
)
"""A run, and those of other bundles that are held against it."""
SAMPLES = 100
"""Pictures whose tokens are recorded, as in the paper's Figure 5."""


def write(results: Mapping[str, Evaluation], folder: Path) -> None:
    """Writes what `results` allow. What is not in them at all stays as it was; of a pair, both have to be."""
    path = folder / NAME
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    found = list(_differences(results))
    kept = [row for row in content.get("differences", []) if results.keys().isdisjoint((row["run"], row["against"]))]
    content["differences"] = [*kept, *found]
    content["tokens"] = content.get("tokens", {}) | _tokens(results)
    with whole(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _differences(results: Mapping[str, Evaluation]) -> Iterator[dict[str, Any]]:
    for reference, others in PAIRS:
        for name in (each for each in others if each in results and reference in results):
            one, other = results[name], results[reference]
            for setting in (each for each in one.settings if each.key in other.texts):
                for task in (*one.tasks, None):
                    found = difference(one, other, setting, task)
                    named = {"policy": setting.policy, "budget": setting.budget, "task": task, "n": found.n}
                    shown = {"difference": found.value, "low": found.low, "high": found.high}
                    yield {"run": name, "against": reference, **named, **shown}


def difference(one: Evaluation, other: Evaluation, setting: Setting, task: str | None) -> Estimate:
    """Mean score of `one` less `other`'s at the same setting, question by question."""
    assert one.facts["dataset_sha256"] == other.facts["dataset_sha256"], "two data sets"
    assert [q.line for q in one.questions] == [q.line for q in other.questions], "not the same rows are good"
    scores = one.scores(setting, task) - other.scores(setting, task)
    number = {picture: i for i, picture in enumerate(dict.fromkeys(q.picture for q in one.questions))}
    pictures = np.array([number[q.picture] for q in one.questions if task in (None, q.task)])
    resampled = resampled_means(scores[:, None], pictures, one.resamples, one.seed)[:, 0]
    return Estimate(float(scores.mean()), *interval(resampled), len(scores))


def _tokens(results: Mapping[str, Evaluation]) -> dict[str, list[int]]:
    """Visual tokens of the first pictures, by setting of the run that has the policies that decide their own number."""
    if "prumerge" not in results:
        return {}
    result = results["prumerge"]
    first = list(dict.fromkeys(q.picture for q in result.questions))[:SAMPLES]
    place = {q.picture: i for i, q in reversed(list(enumerate(result.questions)))}
    return {
        f"{setting.name} {setting.budget}": [int(result.visual_tokens[setting.key][place[each]]) for each in first]
        for setting in result.settings
    }
