"""`hired-edge batch`: each row as it would be alone, bad rows in place, refusals, and how a run survives its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import hired_runtime
from demo.scenes.__main__ import write
from hired_edge import cli
from hired_edge.errors import BundleError
from hired_runtime import model as models
from hired_runtime import ort
from hired_runtime.batch import asking
from hired_runtime.batch.asking import row_seed
from hired_runtime.prompt import question
from hired_runtime.request import Answer, Request
from hired_runtime.sampling import SamplingOptions
from tests.tiny.alike import check_alike, from_scratch
from tests.tiny.batches import DONE, names, noise_requests, read_rows, without_cached, write_rows
from tests.tiny.commands import Capture, accepted, refused, refused_in_the_end

ROOT = Path(__file__).parents[2]
BUNDLE, DEMO = ROOT / "tests/golden/bundle", ROOT / "demo/bundle"


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    return noise_requests(tmp_path / "noise")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real questions of the demonstration: five about each of six pictures that it was not trained on."""
    folder = tmp_path_factory.mktemp("scenes") / "data"
    write(folder, 1001, 6, 5)
    rows = [json.loads(line) for line in (folder / "questions.jsonl").read_text().splitlines()]
    return write_rows(folder / "requests.jsonl", [{key: row[key] for key in ("id", "image", "prompt")} for row in rows])


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Answer]:
    """Every answer that a batch writes, tokens and all."""
    seen: list[Answer] = []
    own = asking.answered

    def noted(answer: Answer) -> dict[str, Any]:
        seen.append(answer)
        return own(answer)

    monkeypatch.setattr(asking, "answered", noted)
    return seen


@pytest.mark.parametrize("batch", [3, None])
@pytest.mark.parametrize("budget", ["100%", "20%"])
def test_each_row_of_the_demonstration_is_as_it_would_be_alone(
    batch: int | None, budget: str, scenes: Path, tmp_path: Path, capsys: Capture, answers: list[Answer]
) -> None:
    options = ["--batch", batch] if batch else []
    output = tmp_path / "answers.jsonl"
    accepted(capsys, "batch", DEMO, scenes, "-o", output, "--visual-tokens", budget, "--threads", 1, *options)
    alone = hired_runtime.open(DEMO, visual_tokens=budget, images=1, threads=1)
    rows, found = read_rows(scenes), read_rows(output)
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    assert len(answers) == len(rows)
    by_text = {(answer.text, answer.prompt_tokens, len(answer.tokens)): answer for answer in answers}
    for row, line in zip(rows, found, strict=True):
        request = Request(question(row["prompt"], 1), [scenes.parent / row["image"]])
        expected, logits = from_scratch(alone, request)
        visual, usage = expected.selections[0].visual_tokens, line["usage"]
        answer = by_text[line["text"], usage["prompt_tokens"] - visual, usage["completion_tokens"]]
        check_alike(answer.tokens, expected.tokens, logits)
        assert line["finish_reason"] == answer.finish_reason
        assert usage == {
            "prompt_tokens": expected.prompt_tokens + visual,
            "completion_tokens": len(answer.tokens),
            "total_tokens": expected.prompt_tokens + visual + len(answer.tokens),
            "visual_tokens": visual,
            "cached_tokens": usage["cached_tokens"],
        }
        assert 0 <= usage["cached_tokens"] < usage["prompt_tokens"]
    assert any(line["usage"]["cached_tokens"] > line["usage"]["visual_tokens"] for line in found)


def test_rows_of_any_number_of_pictures(requests: Path, tmp_path: Path, capsys: Capture) -> None:
    pictures = requests.parent
    rows = [
        {"id": "none", "prompt": "Why?"},
        {"id": "null", "image": None, "prompt": "Why?"},
        {"id": "two", "image": ["0.png", str(pictures / "1.png")], "prompt": "Which one?"},
        {"id": "one", "image": ["0.png"], "prompt": "Why?"},
        {"id": "three", "image": ["0.png", "1.png", "2.png"], "prompt": "Which one?"},
    ]
    output = tmp_path / "answers.jsonl"
    options = ("--max-new-tokens", 3, "--threads", 1, "--stop", "no such thing")
    accepted(capsys, "batch", BUNDLE, write_rows(pictures / "several.jsonl", rows), "-o", output, *options)
    model = hired_runtime.open(BUNDLE, threads=1)
    *found, refusal = read_rows(output)
    for row, line in zip(rows, found, strict=False):
        image = row.get("image") or []
        images = [pictures / path for path in ([image] if isinstance(image, str) else image)]
        assert line["text"] == model.ask(row["prompt"], images, max_new_tokens=3).text
    assert refusal == {
        "id": "three",
        "error": "3 pictures asked for; expected at most 2, which the bundle was opened with",
    }


def test_bad_rows_are_errors_in_their_places(requests: Path, tmp_path: Path, capsys: Capture) -> None:
    sound = (requests.parent / "0.png").read_bytes()
    (requests.parent / "torn.png").write_bytes(sound[: len(sound) // 2])
    (requests.parent / "text.png").write_text("no picture")
    bad = [
        (b"{", None, "is not JSON"),
        ({"id": 0, "image": "1.png", "prompt": "?"}, 0, "id 0 is that of row 1 already"),
        ({"id": "a", "image": "nowhere.png", "prompt": "?"}, "a", "does not exist"),
        ({"id": "b", "image": "torn.png", "prompt": "?"}, "b", "torn.png"),
        ({"id": "c", "image": "text.png", "prompt": "?"}, "c", "text.png"),
        ({"id": "d", "image": ".", "prompt": "?"}, "d", "is a directory"),
        ({"id": "e", "image": "data:image/png;base64,AAAA", "prompt": "?"}, "e", "not a file on this machine"),
        ({"id": "f", "image": "a\0b", "prompt": "?"}, "f", "cannot be opened"),
        ({"id": "g", "prompt": "why " * 400}, "g", "text tokens asked for"),
        ({"id": "h", "prompt": "\ud800"}, "h", "half a character"),
        ({"id": "i", "prompt": "?", "temperature": 1}, "i", "unknown key 'temperature'"),
    ]
    good = read_rows(requests)[:4]
    rows = [row for pair in zip(good, [each[0] for each in bad], strict=False) for row in pair]
    rows += [each[0] for each in bad[len(good) :]]
    output = tmp_path / "answers.jsonl"
    few = ("--max-new-tokens", 2, "--threads", 1)
    line = accepted(capsys, "batch", BUNDLE, write_rows(requests.parent / "bad.jsonl", rows), "-o", output, *few)
    assert line.startswith(f"{output}: 4 answers, 11 errors (15 rows asked now, ")
    found = read_rows(output)
    assert [row["id"] for row in found[:8:2]] == [0, 1, 2, 3]
    assert all(row["text"] is not None for row in found[:8:2])
    for row, (_, row_id, reason) in zip([*found[1:8:2], *found[8:]], bad, strict=True):
        assert list(row) == ["id", "error"]
        assert row["id"] == row_id
        assert reason in row["error"]
        assert row["error"].isprintable()
    accepted(capsys, "batch", BUNDLE, requests, "-o", tmp_path / "sound.jsonl", *few)
    assert without_cached(found[:8:2]) == without_cached(read_rows(tmp_path / "sound.jsonl")[:4])


def test_what_is_drawn_for_a_row_depends_on_nothing_beside_it(requests: Path, tmp_path: Path, capsys: Capture) -> None:
    drawn = ("--temperature", 1.5, "--seed", 7, "--max-new-tokens", 6, "--threads", 1)
    for batch in (1, 2):
        accepted(capsys, "batch", BUNDLE, requests, "-o", tmp_path / f"{batch}.jsonl", "--batch", batch, *drawn)
    texts = [[row["text"] for row in read_rows(tmp_path / f"{batch}.jsonl")] for batch in (1, 2)]
    assert texts[0] == texts[1]
    model = hired_runtime.open(BUNDLE, threads=1)
    for number in (1, 9):
        row = read_rows(requests)[number - 1]
        sampling = SamplingOptions(1.5, seed=row_seed(7, number))
        images = [requests.parent / row["image"]]
        assert texts[0][number - 1] == model.ask(row["prompt"], images, max_new_tokens=6, sampling=sampling).text
    twice = [{**row, "prompt": "Why?", "image": "0.png", "id": n} for n, row in enumerate(read_rows(requests)[:6])]
    output = tmp_path / "twice.jsonl"
    accepted(capsys, "batch", BUNDLE, write_rows(requests.parent / "twice.jsonl", twice), "-o", output, *drawn)
    assert len({row["text"] for row in read_rows(output)}) == 6  # the same question six times


def test_a_finished_output_asks_nothing_and_opens_nothing(
    requests: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "answers.jsonl"
    few = ("--max-new-tokens", 2, "--threads", 1)
    accepted(capsys, "batch", BUNDLE, requests, "-o", output, *few)
    before = output.read_bytes()
    monkeypatch.setattr(models, "open", None)
    summary = json.loads(accepted(capsys, "batch", BUNDLE, requests, "-o", output, *few, "--json"))
    assert (summary["rows"], summary["answers"], summary["asked_now"]) == (12, 12, 0)
    assert "0 rows asked now)" in accepted(capsys, "batch", BUNDLE, requests, "-o", output, *few, "--batch", 1)
    line = refused(capsys, "batch", BUNDLE, requests, "-o", output, "--max-new-tokens", 3)
    assert "holds answers of another run (max_new_tokens 2); expected max_new_tokens 3" in line
    assert output.read_bytes() == before


def test_an_engine_that_fails_ends_the_run_and_keeps_what_was_answered(
    requests: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, step, left = tmp_path / "answers.jsonl", ort.OrtLanguage.step, [14]
    few = ("--max-new-tokens", 3, "--threads", 1)

    def failing(*arguments: Any) -> Any:
        """A faked failure of the engine at the fourteenth step."""
        left[0] -= 1
        if left[0] < 0:
            raise BundleError("the engine has failed", expected="it not to", fix="begin again")
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ort.OrtLanguage, "step", failing)
        line = refused_in_the_end(capsys, "batch", BUNDLE, requests, "-o", output, *few)
    assert line.startswith("the engine has failed")
    kept = (tmp_path / ".answers.jsonl.journal").read_bytes().count(b"\n") - 1
    assert 0 < kept < 12
    assert f"({12 - kept} rows asked now" in accepted(capsys, "batch", BUNDLE, requests, "-o", output, *few)


def test_what_cannot_be_done_is_refused_before_the_bundle_is_opened(
    requests: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "open", None)
    output = tmp_path / "answers.jsonl"
    (tmp_path / "mine").write_text("mine")
    for options, message in (
        (("nowhere.jsonl", "-o", output), "nowhere.jsonl cannot be read (No such file or directory)"),
        ((requests, "-o", tmp_path / "no" / "folder"), "cannot be written (No such file or directory)"),
        ((requests, "-o", requests), "the requests; expected another file"),
        ((requests, "-o", requests, "--restart"), "the requests; expected another file"),
        ((requests, "-o", tmp_path / "mine"), "is there already, and no run has written it"),
        ((requests, "-o", tmp_path / "mine", "--restart"), "is there already, and no run has written it"),
        ((requests, "-o", tmp_path), "is there already"),
        ((requests, "-o", output, "--batch", 0), "--batch 0; expected 1 or more"),
        ((requests, "-o", output, "--batch", 3), "3 batch rows asked for; expected at most 2"),
        ((requests, "-o", output, "--max-new-tokens", 49), "49 new tokens asked for; expected at most 48"),
        ((requests, "-o", output, "--visual-tokens", "many"), "a visual-token budget of 'many'"),
        ((requests, "-o", output, "--visual-tokens", 673), "673 visual tokens asked for; expected at most 672"),
        ((requests, "-o", output, "--policy", "prumerge", "--visual-tokens", "20%"), "policy 'prumerge'"),
        ((requests, "-o", output, "--temperature", -1), "temperature -1.0"),
        ((requests, "-o", output, "--stop", ""), "an empty stop string"),
        ((requests,), "-o"),
    ):
        assert message in refused(capsys, "batch", BUNDLE, *options)
    assert names(tmp_path) == {"mine"}
    assert (tmp_path / "mine").read_text() == "mine"
    assert "does not exist" in refused(capsys, "batch", tmp_path / "nowhere", requests, "-o", output)


def test_a_restart_begins_anew(requests: Path, tmp_path: Path, capsys: Capture) -> None:
    output = tmp_path / "answers.jsonl"
    few = ("-o", output, "--max-new-tokens", 2, "--threads", 1)
    accepted(capsys, "batch", BUNDLE, requests, *few, "--visual-tokens", "20%")
    assert "or --restart" in refused(capsys, "batch", BUNDLE, requests, *few)
    assert cli.main(["batch", str(tmp_path), str(requests), *map(str, few), "--restart"]) == 2  # no bundle
    assert names(tmp_path) == DONE
    assert "(12 rows asked now" in accepted(capsys, "batch", BUNDLE, requests, *few, "--restart")
    assert {row["usage"]["visual_tokens"] for row in read_rows(output)} != {64}
