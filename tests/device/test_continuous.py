"""Continuous batching: requests that come and go at any moment get the answers that they would have alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import hired_runtime
from demo.scenes.compose import compose
from demo.scenes.draw import encode
from demo.scenes.questions import questions
from hired_edge.errors import BundleError, LimitError
from hired_runtime.continuous import Batcher, Running
from hired_runtime.prefix import NOTHING, Names, common, name_of
from hired_runtime.prompt import question
from hired_runtime.request import Answer, Request
from hired_runtime.rows import Rows
from hired_runtime.sampling import SamplingOptions
from hired_runtime.timings import Timings
from tests.tiny.alike import check_alike, from_scratch

ROOT = Path(__file__).parents[2]
SCENES = [compose(2024, number) for number in range(4)]
PICTURES = [encode(scene) for scene in SCENES]
ASKED = [(scene, each.prompt) for scene in range(4) for each in questions(SCENES[scene])[:4]]


@pytest.fixture(scope="module")
def model() -> hired_runtime.Model:
    return hired_runtime.open(ROOT / "demo/bundle", visual_tokens="40%", batch=3, threads=1)


@pytest.fixture(scope="module")
def alone() -> hired_runtime.Model:
    return hired_runtime.open(ROOT / "demo/bundle", visual_tokens="40%", threads=1)


@pytest.fixture(autouse=True)
def forgotten(model: hired_runtime.Model) -> None:
    model.pipeline.batcher.forget()


def request(number: int, budget: str = "20%", **options: Any) -> Request:
    scene, prompt = ASKED[number % len(ASKED)]
    return Request(question(prompt), [PICTURES[scene]], visual_tokens=budget, reuse=True, **options)


def run(batcher: Batcher, running: Running) -> Answer:
    while running.answer is None:
        batcher.step()
    return running.answer


event = st.one_of(
    st.tuples(st.just("start"), st.integers(0, 15), st.sampled_from(["10%", "20%", "40%"])),
    st.tuples(st.just("step"), st.integers(1, 3), st.just("")),
    st.tuples(st.just("drop"), st.integers(0, 2), st.just("")),
)


@settings(max_examples=25, deadline=None)
@given(events=st.lists(event, min_size=4, max_size=14))
def test_any_schedule_gives_every_request_its_own_answer(
    model: hired_runtime.Model, alone: hired_runtime.Model, events: list[tuple[str, int, str]]
) -> None:
    batcher = model.pipeline.batcher
    batcher.forget()
    started: list[tuple[Request, Running]] = []
    for kind, number, budget in events:
        if kind == "start" and batcher.free:
            asked = request(number, budget, max_new_tokens=1 + number % 6)
            started.append((asked, batcher.start(asked)))
        elif kind == "step":
            for _ in range(number):
                batcher.step()
        elif kind == "drop" and number < len(batcher.running):
            batcher.drop(batcher.running[number])
        assert batcher.free + len(batcher.running) == 3
    while batcher.running:
        batcher.step()
    for asked, running in started:
        if running.answer is not None:
            expected, logits = from_scratch(alone, Request(**{**vars(asked), "reuse": False}))
            check_alike(running.answer.tokens, expected.tokens, logits)
            if running.answer.tokens == expected.tokens:
                assert running.answer.text == expected.text
                assert running.answer.finish_reason == expected.finish_reason


def test_drawn_tokens_do_not_depend_on_the_rows_beside(model: hired_runtime.Model, alone: hired_runtime.Model) -> None:
    batcher = model.pipeline.batcher
    options = [SamplingOptions(2.0, seed=seed) for seed in (1, 2, 3)]
    asked = [request(number, sampling=each, max_new_tokens=8) for number, each in enumerate(options)]
    together = [batcher.start(each) for each in asked]
    while batcher.running:
        batcher.step()
    for each, running in zip(asked, together, strict=True):
        expected = alone.pipeline.generate(Request(**{**vars(each), "reuse": False})).answer
        assert running.answer is not None
        assert running.answer.tokens == expected.tokens


def test_a_second_question_about_a_picture_finds_it_in_the_cache(model: hired_runtime.Model) -> None:
    batcher = model.pipeline.batcher
    first = run(batcher, batcher.start(request(0)))
    again = run(batcher, batcher.start(request(1)))
    assert first.cached_tokens == 0
    assert again.cached_tokens >= again.selections[0].visual_tokens
    other = run(batcher, batcher.start(request(4)))  # another picture
    assert other.cached_tokens < 8
    assert run(batcher, batcher.start(request(2))).cached_tokens >= again.selections[0].visual_tokens


def test_rows_at_once_about_one_picture_see_and_prefill_it_once(
    model: hired_runtime.Model, alone: hired_runtime.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another row holds, in use or not, is copied."""
    batcher, language, fed = model.pipeline.batcher, model.pipeline.backend.language, []
    step = language.step

    def spy(embeds: Any, *rest: Any) -> Any:
        fed.append(embeds.shape[:2])
        return step(embeds, *rest)

    monkeypatch.setattr(language, "step", spy)
    asked = [request(number, max_new_tokens=6) for number in range(3)]
    together = [batcher.start(each) for each in asked]
    assert len(batcher.running) == 3
    prefills = [tokens for _, tokens in fed]
    assert max(prefills[1:]) < 20 < prefills[0]
    while batcher.running:
        batcher.step()
    for each, running in zip(asked, together, strict=True):
        expected, logits = from_scratch(alone, Request(**{**vars(each), "reuse": False}))
        assert running.answer is not None
        check_alike(running.answer.tokens, expected.tokens, logits)


def test_a_refused_request_leaves_the_others_alone(model: hired_runtime.Model) -> None:
    batcher = model.pipeline.batcher
    running = batcher.start(request(0, max_new_tokens=4))
    with pytest.raises(LimitError):
        batcher.start(request(1, "100%"))
    with pytest.raises(LimitError):
        batcher.start(request(1, max_new_tokens=99))
    assert batcher.free == 2
    assert run(batcher, running).tokens == model.pipeline.generate(request(0, max_new_tokens=4)).answer.tokens


def test_a_faked_broken_engine_fails_all_and_the_next_request_works(
    model: hired_runtime.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that fails in the middle: nothing that it may have left in the cache is believed."""
    batcher, language = model.pipeline.batcher, model.pipeline.backend.language
    expected = run(batcher, batcher.start(request(0))).tokens
    first, second = batcher.start(request(0, max_new_tokens=9)), batcher.start(request(1, max_new_tokens=9))
    step = language.step

    def failing(*args: Any) -> Any:
        step(*args)
        raise BundleError("a step that fails", expected="one that does not", fix="look at the engine")

    monkeypatch.setattr(language, "step", failing)
    with pytest.raises(BundleError):
        batcher.step()
    monkeypatch.undo()
    assert (batcher.running, batcher.free) == ([], 3)
    assert first.answer is None or second.answer is None
    again = run(batcher, batcher.start(request(0)))
    assert (again.cached_tokens, again.tokens) == (0, expected)


def test_other_steps_of_the_pipeline_end_what_the_cache_is_believed_to_hold(model: hired_runtime.Model) -> None:
    """`decode` writes over the first rows, as an evaluation does."""
    batcher, pipeline = model.pipeline.batcher, model.pipeline
    expected = run(batcher, batcher.start(request(0)))
    width = pipeline.manifest.text.hidden_size
    noise = np.random.default_rng(0).standard_normal((3, 30, width)).astype(np.float32)
    assert len(list(pipeline.decode(list(noise), SamplingOptions(), 3, Timings()))) == 3
    again = run(batcher, batcher.start(request(0)))
    assert (again.cached_tokens, again.tokens) == (0, expected.tokens)


def test_the_same_file_with_other_contents_is_another_picture(model: hired_runtime.Model, tmp_path: Path) -> None:
    path = tmp_path / "camera.jpg"
    answers = []
    for picture in PICTURES[:2]:
        path.write_bytes(picture)
        asked = Request(question("How many cards are there?"), [path], visual_tokens="40%", reuse=True)
        answers.append(model.pipeline.generate(asked).answer.selections[0].gather.tolist())
    assert answers[0] != answers[1]


def test_more_pictures_than_slots_are_seen_again(model: hired_runtime.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """One slot: the maps of an earlier picture are kept, its features are made anew when they are needed."""
    vision, runs = model.pipeline.backend.vision, []
    encode = vision.encode

    def spy(pixels: Any, slot: int = 0) -> Any:
        runs.append(slot)
        return encode(pixels, slot)

    model.pipeline.encoder_cache.clear()
    monkeypatch.setattr(vision, "encode", spy)
    for number, count in ((0, 1), (4, 2), (0, 2), (4, 2)):
        model.pipeline.look(request(number))
        assert len(runs) == count
    model.pipeline.generate(request(0, "10%")).answer  # noqa: B018
    assert len(runs) == 3
    model.pipeline.generate(request(0, "10%", policy="divprune")).answer  # noqa: B018
    assert len(runs) == 3


names = st.lists(st.integers(0, 2), max_size=12).map(
    lambda ids: np.concatenate([NOTHING, *(name_of(token, at) for at, token in enumerate(ids))])
)


@given(first=names, second=names)
def test_what_two_prompts_have_in_common(first: Names, second: Names) -> None:
    count = common(first, second)
    assert first[:count].tolist() == second[:count].tolist()
    longer = first[: count + 1].tolist() == second[: count + 1].tolist()
    assert not longer or count == min(len(first), len(second))


@given(prompts=st.lists(names, min_size=1, max_size=12), count=st.integers(1, 3))
def test_rows_hold_what_was_written(prompts: list[Names], count: int) -> None:
    rows, written = Rows(count), dict.fromkeys(range(count), NOTHING)
    for prompt in prompts:
        row, shared = rows.choose(prompt)
        assert shared == common(written[row], prompt)
        best = max(common(written[each], prompt) for each in range(count))
        assert rows.longest(prompt)[1] == best
        assert shared == best or 2 * best <= max(len(each) for each in written.values())
        rows.take(row)
        rows.hold(row, prompt[:shared])
        rows.write(row, prompt[shared:])
        rows.give_back(row)
        written[row] = prompt
        assert rows.held(row).tolist() == prompt.tolist()
        assert rows.filled(row) == len(prompt)


def test_a_pictures_bytes_and_its_pixels_are_told_apart_and_equal_pictures_are_one(
    model: hired_runtime.Model,
) -> None:
    batcher, prompt = model.pipeline.batcher, question("How many cards are there?")
    opened = Image.open(ROOT / "docs/kept.png").convert("RGB").resize((200, 100))
    for _ in range(2):
        answer = run(batcher, batcher.start(Request(prompt, [opened.copy()], visual_tokens="10%", reuse=True)))
    assert answer.cached_tokens > answer.selections[0].visual_tokens
    opened.putpixel((0, 0), (1, 2, 3))
    answer = run(batcher, batcher.start(Request(prompt, [opened], visual_tokens="10%", reuse=True)))
    assert answer.cached_tokens < 8
