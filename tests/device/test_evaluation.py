"""The evaluation on the committed bundle: batched answers are those of single requests, asked once, and resumed."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import hired_runtime
from hired_edge.budget import parse_budget
from hired_edge.bundle import read_manifest, write_manifest
from hired_edge.errors import BundleError, InputError, LimitError
from hired_edge.limits import derive_limits
from hired_edge.tiling import tile
from hired_runtime import ort
from hired_runtime.evaluation import Setting, evaluate, metrics, runner, settings_grid
from hired_runtime.evaluation.answering import Job, answer
from hired_runtime.evaluation.record import ANSWERS
from hired_runtime.prompt import question
from tests.tiny.questions import PROMPTS, SIZES, write_questions, write_rows

BUNDLE = Path(__file__).parents[1] / "golden/bundle"
SETTINGS = [
    *settings_grid(["full", "hired", "hired-2024"], ["40%", "20%"], [0.5, 0.3]),
    *settings_grid(["random", "uniform", "top-cls"], ["20%", "37"], [0.5]),
    *settings_grid(["hired", "spatial-pooling", "scope"], ["20%"], [0.5], positions=["original"]),
    *settings_grid(["hired", "divprune"], ["40%"], [0.5], positions=["compact", "original"], partitions="base"),
]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write_questions(tmp_path / "questions")
    return tmp_path / "questions"


@pytest.fixture
def wide(bundle: Path) -> Path:
    """The committed bundle as if it had been exported for five rows."""
    manifest = read_manifest(bundle)
    limits = derive_limits(
        manifest.vision.tiling, [parse_budget("100%")], text_tokens=128, new_tokens=48, batch=5, images=1
    )
    write_manifest(bundle, dataclasses.replace(manifest, limits=limits))
    return bundle


@pytest.mark.parametrize(("batch", "newlines"), [(5, None), (2, "none")])
def test_each_row_of_a_batch_is_its_own_single_request(
    batch: int, newlines: str | None, wide: Path, dataset: Path
) -> None:
    batched, single = (hired_runtime.open(wide, batch=rows, images=1) for rows in (batch, 1))
    render = batched.pipeline.prompt.render
    asked = {line: PROMPTS[line] for line in range(3)}
    jobs = [
        Job(line, render(question(asked[line])), replace(each, newlines=newlines).key)
        for each in SETTINGS
        for line in asked
    ]
    assert len({len(job.prompt.ids) for job in jobs}) == 3
    for picture in sorted(dataset.glob("*.png"))[:2]:
        answers = answer(batched.pipeline, picture, jobs, parse_budget("100%"), new_tokens=8, batch=batch)
        assert [each.job for each in answers] == jobs
        for each, setting in zip(answers, [each for each in SETTINGS for _ in asked], strict=True):
            expected = single.ask(
                asked[each.job.line],
                [picture],
                visual_tokens=setting.budget,
                policy=setting.policy,
                alpha=setting.alpha,
                newlines=None if setting.partitions == "base" else newlines,
                partitions=setting.partitions,
                positions=setting.positions,
                max_new_tokens=8,
            )
            assert (each.tokens, each.text) == (expected.tokens, expected.text), (picture.name, setting)
            assert each.visual_tokens == expected.selections[0].visual_tokens
        assert len({tuple(each.tokens) for each in answers}) > len(jobs) // 2, "different questions, different answers"


def test_rows_stop_one_by_one(wide: Path, dataset: Path) -> None:
    """With stop tokens that come early in some answers, late in others and in a few not at all."""
    batched, single = (hired_runtime.open(wide, batch=rows, images=1) for rows in (5, 1))
    free = single.ask(PROMPTS[0], [dataset / "0.png"], visual_tokens="20%", max_new_tokens=12).tokens
    for model in (batched, single):
        stops = (*model.pipeline.manifest.stop_token_ids, *free[3:6:2])
        model.pipeline.manifest = dataclasses.replace(model.pipeline.manifest, stop_token_ids=stops)
    jobs = [
        Job(line, batched.pipeline.prompt.render(question(prompt)), Setting(policy, "20%").key)
        for line, prompt in enumerate(PROMPTS)
        for policy in ("hired", "random", "uniform")
    ]
    lengths = set()
    for picture in sorted(dataset.glob("*.png")):
        answers = answer(batched.pipeline, picture, jobs, parse_budget("20%"), new_tokens=12, batch=5)
        for each in answers:
            options: dict[str, Any] = {"visual_tokens": "20%", "policy": each.job.key.policy, "max_new_tokens": 12}
            expected = single.ask(PROMPTS[each.job.line], [picture], **options)
            assert (each.tokens, each.text) == (expected.tokens, expected.text)
            lengths.add(len(each.tokens))
    assert len(lengths) > 2


def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often the engines are run from now on."""
    counts = {"encode": 0, "step": 0}
    for cls, name in ((ort.OrtVision, "encode"), (ort.OrtLanguage, "step")):
        original = getattr(cls, name)

        def spy(*args: Any, _name: str = name, _original: Any = original) -> Any:
            counts[_name] += 1
            return _original(*args)

        monkeypatch.setattr(cls, name, spy)
    return counts


def test_a_picture_is_seen_once_and_equal_settings_are_answered_once(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_grid(["full", "hired", "random"], ["100%", "20%"], [0.5, 0.3])
    assert len(settings) == 7  # full, 2 x 2 hired, 2 random
    counts = counted(monkeypatch)
    result = evaluate(BUNDLE, dataset, settings, max_new_tokens=4, batch=2)
    assert counts["encode"] == 4
    # Stock, hired at 20 % twice, random at 20 %.
    assert result.facts["answers_made_now"] == 12 * 4
    stock = result.answers(Setting("full"))
    for policy in ("hired", "random"):
        assert result.answers(Setting(policy, "100%", 0.3)) == stock
    assert result.answers(Setting("random", "20%", 0.3)) == result.answers(Setting("random", "20%", 0.5))
    assert result.answers(Setting("hired", "20%")) != result.answers(Setting("random", "20%"))


def test_an_opened_model_is_evaluated_as_its_bundle_is(dataset: Path) -> None:
    model = hired_runtime.open(BUNDLE, visual_tokens="40%", images=1)
    expected = evaluate(BUNDLE, dataset, [Setting("hired", "20%")], max_new_tokens=4)
    result = evaluate(model, dataset, [Setting("hired", "20%")], max_new_tokens=4)
    assert result.answers(Setting("hired", "20%")) == expected.answers(Setting("hired", "20%"))
    with pytest.raises(LimitError, match="visual tokens asked for"):
        evaluate(model, dataset, [Setting("hired", "20%"), Setting("full")])


def test_scores_come_from_the_answers(dataset: Path) -> None:
    """The data set's accepted answers are what the model says at 20 %: all right there, and less elsewhere."""
    settings = [Setting("hired", "20%"), Setting("random", "20%"), Setting("full")]
    first = evaluate(BUNDLE, dataset, settings, max_new_tokens=6)
    said = first.answers(settings[0])
    rows = write_questions(dataset.parent / "again")
    # Rows are in the order of the file, whatever the order of the work.
    write_rows(dataset.parent / "again", [{**row, "answers": ["no", said[i]]} for i, row in enumerate(rows)])
    result = evaluate(BUNDLE, dataset.parent / "again", settings, max_new_tokens=6)
    assert result.accuracy(settings[0]) == (1, 1, 1, 12)
    assert result.accuracy(settings[0], "find") == (1, 1, 1, 4)
    found = result.accuracy(settings[1])
    assert found.value == sum(a == b for a, b in zip(said, first.answers(settings[1]), strict=True)) / 12 < 1
    assert found.low <= found.value <= found.high
    against = result.difference(settings[1], settings[0])
    assert against.value == found.value - 1
    assert result.difference(settings[0], settings[1])[:3] == (-against.value, -against.high, -against.low)
    with pytest.raises(InputError, match="top-cls at 20% was not evaluated"):
        result.accuracy(Setting("top-cls", "20%"))
    with pytest.raises(InputError, match="no question of task 'count'; expected read, find"):
        result.accuracy(settings[0], "count")


def test_an_interrupted_run_goes_on(dataset: Path, tmp_path: Path) -> None:
    settings = settings_grid(["full", "hired", "random"], ["20%"], [0.5])
    whole = evaluate(BUNDLE, dataset, settings, max_new_tokens=5, report=tmp_path / "whole")
    data = (tmp_path / "whole" / ANSWERS).read_bytes()
    choose = random.Random(0)
    ends = [i + 1 for i, byte in enumerate(data) if byte == 10]
    for cut in [0, 10, ends[0], ends[5] - 1, len(data), *(choose.randrange(len(data)) for _ in range(8))]:
        folder = tmp_path / f"cut at {cut}"
        folder.mkdir()
        (folder / ANSWERS).write_bytes(data[:cut])
        result = evaluate(BUNDLE, dataset, settings, max_new_tokens=5, report=folder)
        assert result.rows() == whole.rows()
        assert all(result.answers(each) == whole.answers(each) for each in settings)
        kept = max(0, sum(end <= cut for end in ends) - 1)
        assert result.facts["answers_made_now"] == 36 - kept
        assert sorted((folder / ANSWERS).read_bytes().splitlines()) == sorted(data.splitlines())


def test_settings_can_be_added(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = counted(monkeypatch)
    evaluate(BUNDLE, dataset, [Setting("hired", "20%")], max_new_tokens=5, report=tmp_path)
    settings = [Setting("hired", "20.0%"), Setting("uniform", "20%")]
    added = evaluate(BUNDLE, dataset, settings, max_new_tokens=5, report=tmp_path)
    assert added.facts["answers_made_now"] == 12
    assert added.rows()[0]["budget"] == "20.0%"
    assert counts["encode"] == 8
    again = evaluate(BUNDLE, dataset, settings, max_new_tokens=5, report=tmp_path)
    assert (again.facts["answers_made_now"], counts["encode"]) == (0, 8)
    assert again.rows() == added.rows()


def test_another_metric_scores_the_same_answers(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting("hired", "20%")
    strict = evaluate(BUNDLE, dataset, [setting], max_new_tokens=3, report=tmp_path)
    monkeypatch.setattr(metrics, "METRICS", {**metrics.METRICS, "kind": metrics.Metric(lambda answer, accepted: 0.5)})
    kind = evaluate(BUNDLE, dataset, [setting], max_new_tokens=3, report=tmp_path, metric="kind")
    assert (kind.facts["answers_made_now"], kind.facts["metric"]) == (0, "kind")
    assert kind.answers(setting) == strict.answers(setting)
    assert (strict.accuracy(setting).value, kind.accuracy(setting).value) == (0, 0.5)


def test_answers_of_another_engine_or_version_are_refused(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = hired_runtime.open(BUNDLE, visual_tokens="20%", images=1)
    evaluate(model, dataset, [Setting("hired", "20%")], max_new_tokens=1, report=tmp_path)
    for change in ("engine", "hired_edge"):
        with monkeypatch.context() as patch:
            if change == "engine":
                patch.setattr(model.pipeline, "backend", model.pipeline.backend._replace(name="another 1.0"))
            else:
                patch.setattr(runner, "__version__", "another")
            with pytest.raises(InputError, match=rf"answers of another run \({change} .*; expected {change} another"):
                evaluate(model, dataset, [Setting("hired", "20%")], max_new_tokens=1, report=tmp_path)


def test_an_engine_that_fails_is_an_error_and_leaves_the_cache_clean(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [Setting("hired", "20%"), Setting("full")]
    model = hired_runtime.open(BUNDLE, batch=2, images=1)
    original = ort.OrtLanguage.step
    calls = []

    def broken(*args: Any) -> Any:
        calls.append(1)
        logits = original(*args)
        if len(calls) == 70:
            logits[:] = float("nan")
        return logits

    monkeypatch.setattr(ort.OrtLanguage, "step", broken)
    with pytest.raises(BundleError, match="not finite"):
        evaluate(model, dataset, settings, max_new_tokens=8, report=tmp_path / "report")
    language: Any = model.pipeline.backend.language
    assert not any(array.any() for array in language.cache.arrays)
    # What was answered before is kept.
    result = evaluate(model, dataset, settings, max_new_tokens=8, report=tmp_path / "report")
    assert 0 < result.facts["answers_made_now"] < 24


def test_a_row_is_bad_where_its_picture_or_prompt_is(dataset: Path, tmp_path: Path) -> None:
    rows = write_questions(tmp_path / "bad")
    (tmp_path / "bad/1.png").write_bytes(b"this is no picture")
    (tmp_path / "bad/2.png").write_bytes((tmp_path / "bad/2.png").read_bytes()[:900])
    rows[0]["prompt"] = "why " * 500
    write_rows(tmp_path / "bad", rows)
    result = evaluate(BUNDLE, tmp_path / "bad", [Setting("hired", "20%")], max_new_tokens=2)
    reasons = {row.line: row.reason for row in result.bad_rows}
    assert sorted(reasons) == [1, 2, 3, 6, 7, 10, 11]
    assert "text tokens asked for, expected at most 128" in reasons[1]
    assert reasons[2].startswith("1.png: the picture's data (18 bytes) is not a picture")
    assert "2.png: " in reasons[3]
    assert "truncated or damaged" in reasons[3]
    assert [each.line for each in result.questions] == [4, 5, 8, 9, 12]
    # The others are answered as if the bad ones were not there.
    expected = evaluate(BUNDLE, dataset, [Setting("hired", "20%")], max_new_tokens=2)
    texts = dict(
        zip([each.line for each in expected.questions], expected.answers(Setting("hired", "20%")), strict=True)
    )
    assert list(result.answers(Setting("hired", "20%"))) == [texts[each.line] for each in result.questions]


def test_a_budget_that_a_picture_has_no_selection_for_ends_the_run(dataset: Path) -> None:
    """Leaving the picture out would measure every setting on the pictures that one of them likes."""
    rules = read_manifest(BUNDLE).vision.tiling
    rows = [tile(height, width, rules).rows for width, height in SIZES]
    assert min(rows) < max(rows)
    setting = Setting("hired", str(max(rows) - 1), newlines="all-rows")
    with pytest.raises(LimitError, match=rf"^\S+: a budget of {max(rows) - 1} .* for a picture of {max(rows)} rows"):
        evaluate(BUNDLE, dataset, [Setting("full"), setting], max_new_tokens=2)


def test_nothing_but_bad_pictures_is_an_error(tmp_path: Path) -> None:
    write_questions(tmp_path / "bad", pictures=1)
    (tmp_path / "bad/0.png").write_bytes(b"this is no picture")
    with pytest.raises(InputError, match=r"no row that can be answered \(3 bad; line 1: 0\.png: the picture's data"):
        evaluate(BUNDLE, tmp_path / "bad", [Setting("hired", "20%")], max_new_tokens=2)
