"""The parts of the lmms-eval adapter that need no lmms-eval; tests/host/test_lmms_eval.py runs the harness itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from hired_edge.errors import InputError, LimitError
from hired_runtime.lmms_eval import adapter as module
from hired_runtime.lmms_eval.adapter import Adapter, Query
from hired_runtime.lmms_eval.answer_options import AnswerOptions, answer_options
from hired_runtime.sampling import SamplingOptions

BUNDLE = Path(__file__).parents[1] / "golden/bundle"
TOKENS = 4
SHORT = AnswerOptions(TOKENS)
PICTURES = [Image.effect_noise((130, 97), sigma).convert("RGB") for sigma in (20, 60, 90)]


def query(
    text: str, *pictures: Any, name: str = "task/test/0", options: AnswerOptions = SHORT, looked: list | None = None
) -> Query:
    def look() -> list[Any]:
        if looked is not None:
            looked.append(name)
        return [each.copy() if isinstance(each, Image.Image) else each for each in pictures]

    return Query(name, text, look, options)


@pytest.fixture(scope="module")
def opened() -> Iterator[Callable[..., Adapter]]:
    """Opens an adapter of the committed bundle."""
    adapters = []

    def open_one(**arguments: Any) -> Adapter:
        adapters.append(Adapter(BUNDLE, **{"visual_tokens": "20%", **arguments}))
        return adapters[-1]

    yield open_one
    for each in adapters:
        each.close()


@pytest.fixture(scope="module")
def adapter(opened: Callable[..., Adapter]) -> Adapter:
    return opened(batch=2)


# Options of a task.


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({}, AnswerOptions()),
        ({"until": "\n\n", "max_new_tokens": 16, "temperature": 0, "top_p": 0, "num_beams": 1, "do_sample": False},
         AnswerOptions(16, ("\n\n",))),
        ({"until": ["ASSISTANT:", ""], "image_aspect_ratio": "original"}, AnswerOptions(None, ("ASSISTANT:",))),
        ({"until": None, "temperature": 0.7, "top_p": None}, AnswerOptions(sampling=SamplingOptions(0.7))),
        ({"do_sample": False, "temperature": 0.7}, AnswerOptions()),
        ({"do_sample": True, "top_k": 5, "top_p": 0.9, "seed": 3},
         AnswerOptions(sampling=SamplingOptions(1.0, 5, 0.9, 3))),
        ({"do_sample": True, "temperature": 0}, AnswerOptions()),
    ],
)  # fmt: skip
def test_generation_kwargs_as_the_benchmarks_have_them(kwargs: dict[str, Any], expected: AnswerOptions) -> None:
    assert answer_options(kwargs) == expected


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        ({"num_beams": 5}, "num_beams=5"),
        ({"repetition_penalty": 1.2}, "repetition_penalty=1.2"),
        ({"stop_sequences": ["a"]}, "stop_sequences="),
        ({"until": [1]}, "until="),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"max_new_tokens": "16"}, "max_new_tokens='16'"),
        ({"do_sample": "no"}, "do_sample='no'"),
        ({"temperature": "hot"}, "temperature='hot'"),
    ],
)
def test_an_option_that_cannot_be_honoured_is_refused(kwargs: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        answer_options(kwargs)


# Arguments of the model.


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ({"visual_token": "20%"}, InputError, "visual_token= in --model_args; expected only bundle, .*visual_tokens"),
        ({"policy": "none"}, InputError, "none"),
        ({"visual_tokens": "many"}, InputError, "many"),
        ({"bad_rows": "drop"}, InputError, "bad_rows='drop'"),
        ({"batch": "auto"}, InputError, "--batch_size auto"),
        ({"batch": 64}, LimitError, "64 batch rows"),
        ({"images": 0}, InputError, "images=0"),
        ({"max_new_tokens": 4096}, LimitError, "max_new_tokens=4096"),
    ],
)
def test_arguments_that_are_refused(
    arguments: dict[str, Any], error: type[Exception], named: str, opened: Callable[..., Adapter]
) -> None:
    with pytest.raises(error, match=named):
        opened(**arguments)


def test_a_bundle_has_to_be_named() -> None:
    with pytest.raises(InputError, match=r"pass bundle=FOLDER"):
        Adapter(None)


# Answers.


def expected(adapter: Adapter, text: str, *pictures: Image.Image, **options: Any) -> str:
    return adapter.model.ask(text, pictures, max_new_tokens=TOKENS, **options).text


def test_answers_come_in_the_order_asked_and_pictures_are_seen_once(
    adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    original = module.answer
    monkeypatch.setattr(module, "answer", lambda *args, **kw: seen.append(len(args[2])) or original(*args, **kw))
    texts = ["Why?", "What is on the table, and where?", "Who?", "What is it?"]
    places = [(0, 0), (1, 0), (2, 0), (3, 1), (0, 1), (1, 2), (2, 0)]
    looked: list[str] = []
    queries = [
        query(texts[text], PICTURES[picture], name=str(at), looked=looked) for at, (text, picture) in enumerate(places)
    ]
    progress: list[int] = []
    answers = adapter.answers(queries, on_answers=progress.append)
    assert answers == [expected(adapter, texts[text], PICTURES[picture]) for text, picture in places]
    assert seen == [3, 2, 1, 1]
    assert looked == [str(at) for at in range(len(places))]
    assert sum(progress) == len(places)


def test_neighbours_with_other_options_are_not_answered_together(adapter: Adapter) -> None:
    longer = AnswerOptions(TOKENS + 2)
    sampled = AnswerOptions(TOKENS, sampling=SamplingOptions(1.0, seed=7))
    asked = [query("Why?", PICTURES[0], options=each) for each in (SHORT, longer, sampled)]
    alone = [adapter.answers([each])[0] for each in asked]
    assert adapter.answers(asked) == alone
    assert alone[1].startswith(alone[0])
    assert alone[2] == expected(adapter, "Why?", PICTURES[0], sampling=SamplingOptions(1.0, seed=7))


def test_stop_strings_end_an_answer(adapter: Adapter) -> None:
    (whole,) = adapter.answers([query("Why?", PICTURES[0])])
    stop = whole[2]
    (cut,) = adapter.answers([query("Why?", PICTURES[0], options=AnswerOptions(TOKENS, (stop,)))])
    assert cut == whole[: whole.index(stop)]


def test_request_options_reach_the_request(opened: Callable[..., Adapter]) -> None:
    options = {"policy": "random", "alpha": 0.25, "newlines": "none"}
    adapter = opened(**options)
    assert adapter.answers([query("Why?", PICTURES[0])]) == [expected(adapter, "Why?", PICTURES[0], **options)]


def test_an_option_of_requests_that_batches_do_not_know_is_asked_alone(
    adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "_options", {**adapter._options, "unknown": 1})
    asked = []
    monkeypatch.setattr(adapter.model, "ask", lambda *args, **kw: asked.append(kw) or SimpleNamespace(text="yes"))
    assert adapter.answers([query("Why?", PICTURES[0]), query("Who?", PICTURES[0])]) == ["yes", "yes"]
    assert [each["unknown"] for each in asked] == [1, 1]


def test_questions_without_a_picture_and_with_several(opened: Callable[..., Adapter]) -> None:
    adapter = opened(images=2)
    assert adapter.answers([query("Why?"), query("Why?", *PICTURES[:2])]) == [
        expected(adapter, "Why?"),
        expected(adapter, "Why?", *PICTURES[:2]),
    ]


def test_more_new_tokens_than_exported_are_capped_and_said_once(opened: Callable[..., Adapter]) -> None:
    said: list[str] = []
    adapter = opened(say=said.append, max_new_tokens=TOKENS)
    for _ in range(2):
        (text,) = adapter.answers([query("Why?", PICTURES[0], options=AnswerOptions(100))])
        assert text == expected(adapter, "Why?", PICTURES[0])
    assert said == ["tasks ask for up to 100 new tokens: answers end at 4, as the bundle was opened"]


# Rows that cannot be asked.


def bad_queries(looked: list[str]) -> list[Query]:
    return [
        query("Why?", PICTURES[0], name="pope/test/0", looked=looked),
        query("why " * 200, PICTURES[0], name="sqa/test/1", looked=looked),
        query("Who?", PICTURES[0], name="pope/test/2", looked=looked),
        query("Who?", "film.mp4", name="film/test/3", looked=looked),
    ]


def test_long_questions_are_refused_together_before_any_is_asked(adapter: Adapter) -> None:
    looked: list[str] = []
    with pytest.raises(LimitError, match=r"1 of 4 questions .*sqa/test/1.*at most 128.*--max-text-tokens \d+"):
        adapter.answers(bad_queries(looked))
    assert looked == []


def test_an_unusable_visual_ends_the_run_with_its_documents_name(adapter: Adapter) -> None:
    with pytest.raises(InputError, match=r"film/test/3: a visual of type str.*bad_rows=empty"):
        adapter.answers(bad_queries([])[2:])
    with pytest.raises(LimitError, match=r"many/test/0: 2 pictures"):
        adapter.answers([query("Why?", *PICTURES[:2], name="many/test/0")])


def test_bad_rows_may_be_counted_as_wrong(opened: Callable[..., Adapter]) -> None:
    said: list[str] = []
    adapter = opened(bad_rows="empty", say=said.append)
    why, who = expected(adapter, "Why?", PICTURES[0]), expected(adapter, "Who?", PICTURES[0])
    assert adapter.answers(bad_queries([])) == [why, "", who, ""]
    assert len(said) == 1
    assert said[0].startswith("2 of 4 questions got the empty answer (bad_rows=empty): sqa/test/1: ")
    assert "film/test/3: a visual of type str" in said[0]
