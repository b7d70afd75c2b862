"""`make accuracy`: what it takes up again, what it makes anew, and differences across bundles."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.measuring import __main__ as measuring
from demo.measuring import across, runs
from demo.measuring.runs import BUNDLES, DATA, RUNS, Data, Run
from demo.reports import ACCURACY, Report
from hired_runtime.evaluation import Evaluation, Setting

HIRED, RANDOM = Setting("hired", "20%"), Setting("random", "20%")
SMALL = Run("small", "small", [Setting("full"), HIRED, RANDOM])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(measuring, "OUTPUT", tmp_path / "output")
    monkeypatch.setattr(measuring, "ACCURACY", tmp_path / "accuracy")
    monkeypatch.setattr(measuring, "DATA", {"small": Data(1005, per_task=2)})
    measuring.work.cache_clear()
    yield tmp_path
    measuring.work.cache_clear()


@pytest.fixture
def measured(folder: Path) -> Evaluation:
    return measuring.measure(SMALL)


def test_a_second_run_asks_nothing_again(measured: Evaluation, folder: Path) -> None:
    assert measured.facts["answers_made_now"] == 3 * 10
    again = measuring.measure(SMALL)
    assert again.facts["answers_made_now"] == 0
    assert again.rows() == measured.rows()
    assert json.loads((folder / "accuracy/small/report.json").read_text())["rows"] == measured.rows()


def test_every_task_is_asked_as_often_and_of_a_picture_once(measured: Evaluation) -> None:
    assert set(Counter(question.task for question in measured.questions).values()) == {2}
    assert max(Counter((question.task, question.image) for question in measured.questions).values()) == 1


def test_other_code_and_other_pictures_begin_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = folder / "module.py"

    def named(text: str) -> Path:
        source.write_text(text)
        monkeypatch.setattr(measuring, "_sources", lambda: [("module.py", source)])
        measuring.work.cache_clear()
        return measuring.work()

    first = named('"""What it does."""\ndef f(x):\n    """Doubles."""\n    return 2 * x  # twice\n')
    assert named('"""What it is."""\ndef f(x):\n    """Twice."""\n\n    return 2 * x\n') == first
    assert named("def f(x):\n    return 3 * x\n") != first
    drawn = measuring.questions("small")
    monkeypatch.setattr(measuring, "DATA", {"small": Data(1006, per_task=2)})
    assert measuring.questions("small") != drawn


def test_differences_across_runs_are_those_within_one(measured: Evaluation) -> None:
    same = across.difference(measured, measured, HIRED, None)
    assert (same.value, same.low, same.high, same.n) == (0, 0, 0, 10)
    one = Evaluation(**{**_arguments(measured), "texts": {HIRED.key: measured.texts[HIRED.key]}})
    other = Evaluation(**{**_arguments(measured), "texts": {HIRED.key: measured.texts[RANDOM.key]}})
    for task in (*measured.tasks, None):
        assert across.difference(one, other, HIRED, task) == measured.difference(HIRED, RANDOM, task)


def _arguments(result: Evaluation) -> dict:
    names = ("settings", "questions", "bad_rows", "visual_tokens", "positions", "metric", "facts")
    return {name: getattr(result, name) for name in names}


def test_a_thousand_questions_a_task_are_asked_with_every_baseline() -> None:
    names = [run.name for run in RUNS]
    assert len(set(names)) == len(names)
    assert {run.data for run in RUNS} == set(DATA)
    assert {run.bundle for run in RUNS} == set(BUNDLES)
    asked = {name: {setting.policy for run in RUNS if run.data == name for setting in run.settings} for name in DATA}
    assert {"full", "hired", "random", "uniform", "top-cls"} <= asked["thousand"]
    assert {data.seed for data in DATA.values()} >= {1002, 1003}
    assert all(data.seed >= 1000 for data in DATA.values())  # below, training has seen them


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_every_run_has_its_committed_report(run: Run) -> None:
    report = Report(run.name)
    per_task = runs.DATA[run.data].per_task
    assert per_task is None or report.facts["questions"] == 5 * per_task  # no row was refused
    found = {(row["policy"], row["budget"], row["alpha"], row["newlines"], row["positions"]) for row in report.rows}
    for each in run.settings:
        shown = (each.policy, each.budget, each.shown_alpha, each.newlines, each.key.positions)
        assert shown in found, each.name


def test_reports_that_no_run_writes_are_not_kept() -> None:
    folders = {path.name for path in ACCURACY.iterdir() if (path / "report.json").exists()}
    assert folders == {run.name for run in RUNS}
