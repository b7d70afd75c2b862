"""NaN and infinity from an engine: reported as such, answered from never, and nobody else's business.

The engines are real. What is broken is what lies in them: features and cache rows are overwritten with NaN, as fp16
that overflows would leave them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hired_runtime
from demo.scenes.compose import compose
from demo.scenes.draw import encode
from demo.scenes.questions import questions
from hired_edge.errors import NumericalError
from hired_edge.finite import check_finite
from hired_runtime.batch.asking import lines
from hired_runtime.batch.requests_file import Row
from hired_runtime.continuous import Running
from hired_runtime.ort import OrtLanguage, OrtVision
from hired_runtime.prompt import question
from hired_runtime.request import Request
from hired_runtime.sampling import SamplingOptions
from tests.tiny.alike import check_alike, from_scratch
from tests.tiny.served import Reply, Served, served, until

ROOT = Path(__file__).parents[2]
SCENES = [compose(2024, number) for number in range(3)]
PICTURES = [encode(scene) for scene in SCENES]
PROMPTS = [questions(scene)[0].prompt for scene in SCENES]


@pytest.fixture(scope="module")
def model() -> hired_runtime.Model:
    return hired_runtime.open(ROOT / "demo/bundle", visual_tokens="20%", batch=3, threads=1)


@pytest.fixture(autouse=True)
def forgotten(model: hired_runtime.Model) -> None:
    model.pipeline.batcher.forget()
    model.pipeline.encoder_cache.clear()


def asked(number: int, **options: Any) -> Request:
    return Request(question(PROMPTS[number]), [PICTURES[number]], reuse=True, **options)


def spoil(model: hired_runtime.Model, running: Running, value: float = np.nan) -> None:
    """The latest key of its row, which every later query sees, and which nobody else's prompt has."""
    language: Any = model.pipeline.backend.language
    filled = model.pipeline.batcher._rows.filled(running.row)
    language.cache.arrays[0][running.row, :, filled - 1] = value


@pytest.fixture
def spoiled_features(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the pictures, as they are encoded, whose features overflow."""
    encode_really, numbers, done = OrtVision.encode, [], []

    def overflowing(self: OrtVision, pixel_values: Any, slot: int = 0) -> Any:
        maps = encode_really(self, pixel_values, slot)
        if len(done) in numbers:
            self._features[slot] = np.inf
        done.append(slot)
        return maps

    monkeypatch.setattr(OrtVision, "encode", overflowing)
    return numbers


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_is_enough_and_counted(value: float) -> None:
    array = np.zeros((3, 5), np.float16)
    check_finite(array, "a table")
    array[1, 2] = value
    with pytest.raises(NumericalError, match="a table with 1 of 15 numbers that are not finite"):
        check_finite(array, "a table")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_row_of_nan_ends_its_request_alone(model: hired_runtime.Model, number: int) -> None:
    batcher = model.pipeline.batcher
    running = [batcher.start(asked(each, max_new_tokens=8)) for each in range(3)]
    assert all(each.answer is None for each in running)
    spoil(model, running[number])
    while batcher.running:
        batcher.step()
    assert isinstance(running[number].error, NumericalError)
    assert running[number].answer is None
    assert "logits of the language engine" in str(running[number].error)
    others = [each for each in range(3) if each != number]
    row = running[number].row
    language: Any = model.pipeline.backend.language
    assert not any(array[row].any() for array in language.cache.arrays)
    again = batcher.start(asked(number, max_new_tokens=8))
    while again.answer is None:
        batcher.step()
    assert again.answer.cached_tokens < again.answer.selections[0].visual_tokens
    for each, answer in [(number, again.answer), *((other, running[other].answer) for other in others)]:
        assert answer is not None
        batcher.forget()
        expected, logits = from_scratch(model, asked(each, max_new_tokens=8))
        check_alike(answer.tokens, expected.tokens, logits)


def test_features_that_overflow_end_their_request_alone(
    model: hired_runtime.Model, spoiled_features: list[int]
) -> None:
    batcher = model.pipeline.batcher
    first = batcher.start(asked(0, max_new_tokens=6))
    spoiled_features.append(1)
    with pytest.raises(NumericalError, match=r"features of the vision engine with .* not finite"):
        batcher.start(asked(1))
    assert batcher.running == [first]
    while first.answer is None:
        batcher.step()
    second = batcher.start(asked(1, max_new_tokens=6))  # seen anew
    while second.answer is None:
        batcher.step()
    for number, running in enumerate([first, second]):
        batcher.forget()
        expected, logits = from_scratch(model, asked(number, max_new_tokens=6))
        assert running.answer is not None
        check_alike(running.answer.tokens, expected.tokens, logits)


@pytest.mark.parametrize("policy", ["scope", "divprune", "vispruner"])
def test_a_policy_does_not_choose_by_features_that_overflow(
    model: hired_runtime.Model, spoiled_features: list[int], policy: str
) -> None:
    spoiled_features.append(0)
    with pytest.raises(NumericalError, match="features of the vision engine"):
        model.ask(PROMPTS[0], [PICTURES[0]], policy=policy)
    assert model.ask(PROMPTS[0], [PICTURES[0]], policy=policy).text


def test_where_a_row_cannot_be_cleaned_all_are_ended(
    model: hired_runtime.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ONNX Runtime on a GPU, which is faked here by an engine that says it cannot."""
    monkeypatch.setattr(OrtLanguage, "reset_row", lambda self, row: False)
    batcher = model.pipeline.batcher
    running = [batcher.start(asked(each, max_new_tokens=8)) for each in range(2)]
    spoil(model, running[0])
    with pytest.raises(NumericalError):
        batcher.step()
    language: Any = model.pipeline.backend.language
    assert not any(array.any() for array in language.cache.arrays)
    assert batcher.free == 3


def test_what_a_prefix_was_copied_from_is_not_copied_again(model: hired_runtime.Model) -> None:
    """A row that nobody uses, and whose NaN no logit has shown: behind a window, or after a fault of the memory."""
    batcher, language = model.pipeline.batcher, model.pipeline.backend.language
    told = [{"role": "system", "content": "Say it."}]

    def about(text: str) -> Request:
        return Request([*told, {"role": "user", "content": text}], reuse=True, max_new_tokens=4)

    first = batcher.start(about("Which card is red, and which one is blue? Why?"))
    while first.answer is None:
        batcher.step()
    language.cache.arrays[0][first.row, :, 3] = np.nan  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(NumericalError):
        batcher.start(about("Why?"))
    again = batcher.start(about("Why?"))
    while again.answer is None:
        batcher.step()
    assert again.answer.cached_tokens == 0
    batcher.forget()
    expected, logits = from_scratch(model, about("Why?"))
    check_alike(again.answer.tokens, expected.tokens, logits)


def test_a_stream_ends_in_the_error(model: hired_runtime.Model) -> None:
    stream = model.stream(PROMPTS[0], [PICTURES[0]], max_new_tokens=8)
    next(stream)
    spoil(model, model.pipeline.batcher.running[0])
    with pytest.raises(NumericalError):
        list(stream)
    assert model.ask(PROMPTS[0], [PICTURES[0]]).text


def test_a_file_of_requests_has_an_error_in_its_place(model: hired_runtime.Model, tmp_path: Path) -> None:
    for number, picture in enumerate(PICTURES):
        (tmp_path / f"{number}.jpg").write_bytes(picture)
    rows = [Row(number, str(number), (tmp_path / f"{number}.jpg",), PROMPTS[number]) for number in range(3)]

    def fed() -> Iterator[Row]:
        yield from rows[:2]
        spoil(model, model.pipeline.batcher.running[0])
        yield rows[2]

    found = dict(lines(model.pipeline, fed(), {"sampling": SamplingOptions()}))
    assert "not finite" in found[0]["error"]
    assert [set(found[number]) for number in (1, 2)] == 2 * [{"id", "text", "finish_reason", "usage"}]


def test_the_server_tells_one_client_and_answers_the_others() -> None:
    with served(ROOT / "tests/golden/bundle", step_s=0.05) as server:
        engine = server.engine
        body = {"model": "cards", "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 20, "stream": True}
        with server.connection() as raw:
            data = json.dumps(body).encode()
            raw.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n" % len(data) + data
            )
            until(lambda: len(engine.model.pipeline.batcher.running) == 1)
            with engine.model.pipeline.turns.lock:
                spoil(engine.model, engine.model.pipeline.batcher.running[0])
            told = b""
            while b"not_finite" not in told:
                piece = raw.recv(65536)
                assert piece, told
                told += piece
        assert b"[DONE]" not in told
        reply = server.post({**body, "stream": False})
        assert reply.status == 200
        assert 'hired_edge_refused_total{reason="not_finite"} 1.0' in server.get("/metrics").body.decode()


@pytest.mark.parametrize("spoiled", ["maps", "features"])
def test_a_picture_that_was_looked_at_in_vain_is_seen_anew(monkeypatch: pytest.MonkeyPatch, spoiled: str) -> None:
    """The page's two requests: a picture's maps, and a selection by its features."""
    encode_really, done = OrtVision.encode, []

    def overflowing(self: OrtVision, pixel_values: Any, slot: int = 0) -> Any:
        maps = encode_really(self, pixel_values, slot)
        if not done and spoiled == "maps":
            np.array(maps.allocation, copy=False)[0, 0] = np.nan
        elif not done:
            self._features[slot] = np.inf
        done.append(slot)
        return maps

    monkeypatch.setattr(OrtVision, "encode", overflowing)

    def looked(server: Served) -> list[Reply]:
        picture = server.post(PICTURES[0], {"Content-Type": "image/jpeg"}, path="/api/pictures")
        if picture.status != 200:
            return [picture]
        body = {"picture": picture.json["picture"], "visual_tokens": "20%", "policy": "scope"}
        return [picture, server.post(body, path="/api/selections")]

    with served() as server:
        *_, last = looked(server)
        assert (last.status, last.error["code"]) == (500, "not_finite")
        assert [each.status for each in looked(server)] == [200, 200]
        assert len(done) == 2
    model = hired_runtime.open(ROOT / "demo/bundle", threads=1)
    done.clear()
    request = asked(0, policy="scope", visual_tokens="20%")
    with pytest.raises(NumericalError):
        model.pipeline.look(request)
    assert model.pipeline.look(request)
