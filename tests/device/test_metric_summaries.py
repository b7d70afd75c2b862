"""Figures of a whole set in a report, with their intervals; and questions that a metric cannot score."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from hired_edge.errors import InputError
from hired_runtime.evaluation import Evaluation, Question, Setting
from hired_runtime.evaluation.report import markdown, report

ROOT = Path(__file__).parents[2]


def evaluation(metric: str, rows: Sequence[tuple[str, Sequence[str], str]], resamples: int = 4000) -> Evaluation:
    """Rows are (picture, accepted, what the stock sequence answers); hired at 20 % always answers "no"."""
    settings = [Setting("full"), Setting("hired", "20%")]
    questions = [
        Question(line, picture, Path(picture), "?", tuple(accepted), "task")
        for line, (picture, accepted, _) in enumerate(rows, 1)
    ]
    texts = {settings[0].key: [said for _, _, said in rows], settings[1].key: ["no"] * len(rows)}
    facts = {"bundle": "b", "questions": len(rows), "pictures": 2, "metric": metric, "resamples": resamples}
    used = {settings[0].key: list(range(300, 300 + len(rows))), settings[1].key: [64] * len(rows)}
    positions = {setting.budget: 1 for setting in settings}
    return Evaluation(settings, questions, [], texts, used, positions, metric, facts, resamples)


TWO_PICTURES = [
    ("a.png", ["yes"], "Yes"),
    ("a.png", ["no"], "Yes"),
    ("a.png", ["no"], "Yes"),
    ("b.png", ["yes"], "No"),
    ("b.png", ["yes"], "Yes"),
    ("b.png", ["no"], "No"),
]


def test_a_report_has_f1_and_its_interval() -> None:
    """Two pictures, so three sorts of resample: a a has an F1 of 1/2, a b of 4/7, b b of 2/3."""
    result = evaluation("pope", TWO_PICTURES)
    full, none = result.settings
    found = result.summary(full)
    assert list(found) == ["precision", "recall", "f1", "yes_ratio"]
    assert found["f1"] == pytest.approx((4 / 7, 1 / 2, 2 / 3, 6))
    assert found["precision"] == pytest.approx((1 / 2, 1 / 3, 1, 6))
    assert found["recall"] == pytest.approx((2 / 3, 1 / 2, 1, 6))
    assert found["yes_ratio"] == pytest.approx((2 / 3, 1 / 3, 1, 6))
    never = result.summary(none, "task")
    assert (never["precision"], never["f1"], never["yes_ratio"]) == (None, (0, 0, 0, 6), (0, 0, 0, 6))
    content = json.loads(json.dumps(report(result), allow_nan=False))
    first, second = content["rows"]
    assert first["accuracy"] == pytest.approx(1 / 2)
    assert first["summary"]["precision"] == pytest.approx({"value": 1 / 2, "low": 1 / 3, "high": 1})
    assert second["summary"]["precision"] is None
    page = markdown(result, content)
    assert "| policy | budget | precision | recall | f1 | yes ratio |" in page
    assert "| full | 100% | 50.0 (33.3-100.0) | 66.7 (50.0-100.0) | 57.1 (50.0-66.7) | 66.7 (33.3-100.0) |" in page
    assert "| hired | 20% | undefined | 0.0 (0.0-0.0) |" in page


def test_resamples_without_a_yes_say_nothing_about_recall() -> None:
    rows = [("a.png", ["yes"], "Yes"), ("a.png", ["yes"], "No"), ("b.png", ["no"], "No")]
    result = evaluation("pope", rows)
    assert result.summary(result.settings[0])["recall"] == (0.5, 0.5, 0.5, 3)


def test_other_metrics_add_nothing_to_a_report() -> None:
    """The committed reports of the demonstration were written before there were summaries: rows begin as theirs do."""
    committed = json.loads((ROOT / "demo/accuracy/int8/report.json").read_bytes())["rows"][0]
    result = evaluation("exact", TWO_PICTURES)
    setting = ["newlines", "partitions", "positions", "visual_tokens"]
    older = [name for name in committed if name not in setting]
    assert [list(row) for row in result.rows()] == [[*older, *setting]] * 2
    assert "summary" not in older
    assert result.summary(result.settings[0]) == {}
    assert "Over the set" not in markdown(result, report(result))


@pytest.mark.parametrize(
    ("metric", "accepted", "message"),
    [
        ("vqa", ["red"], "line 2 has 1 accepted answer, not those of 10 people"),
        ("vqa", ["red"] * 9, "line 2 has 9 accepted answers, not those of 10 people"),
        ("pope", ["red"], "line 2 has accepted answers other than yes alone or no alone"),
        ("pope", ["yes", "no"], "line 2 has accepted answers other than yes alone or no alone"),
    ],
)
def test_questions_of_another_kind_are_refused(metric: str, accepted: list[str], message: str) -> None:
    good = ["Yes"] if metric == "pope" else ["red"] * 10
    with pytest.raises(InputError, match=message):
        evaluation(metric, [("a.png", good, "no"), ("b.png", accepted, "no")])
    assert evaluation(metric, [("a.png", good, "no")]).rows()[0]["accuracy"] == 0
