"""Sixteen clients at once over HTTP: everybody gets the text that they would get alone."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import hired_runtime
from demo.scenes.compose import compose
from demo.scenes.draw import encode
from demo.scenes.questions import questions
from hired_runtime.prompt import question
from hired_runtime.request import Request
from hired_runtime.text import TextStream
from tests.tiny.alike import TOLERANCE, from_scratch
from tests.tiny.served import BUNDLE, NAME, Served, asked, served

CLIENTS, REQUESTS = 16, 200
SCENES = [compose(2024, number) for number in range(8)]
PICTURES = [encode(scene) for scene in SCENES]


def mixed(number: int) -> tuple[int | None, str, dict[str, Any]]:
    """A picture or none, a question, and the fields of request `number`."""
    draw = random.Random(number)
    scene = draw.choice([*range(len(SCENES)), None])
    prompt = "Is there a blue card?" if scene is None else draw.choice(questions(SCENES[scene])).prompt
    fields = {"visual_tokens": draw.choice(["5%", "20%", 60, "100%"]), "policy": draw.choice(["hired", "uniform"])}
    return scene, prompt, {**fields, "max_tokens": draw.randint(1, 16)}


def text_of(server: Served, number: int) -> str:
    scene, prompt, fields = mixed(number)
    body = asked(None if scene is None else PICTURES[scene], prompt, **fields)
    extra = {name: body.pop(name) for name in ("visual_tokens", "policy")}
    client: Any = server.openai().chat.completions
    if number % 2:
        return client.create(**body, extra_body=extra).choices[0].message.content
    chunks = client.create(**body, extra_body=extra, stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_two_hundred_mixed_requests_are_answered_as_one_by_one() -> None:
    with served(batch=4, queue=CLIENTS) as server, ThreadPoolExecutor(CLIENTS) as clients:
        texts = list(clients.map(lambda number: text_of(server, number), range(REQUESTS)))
        assert server.engine.running == server.engine.waiting == 0
        assert server.get("/v1/models").json["data"][0]["id"] == NAME
    alone, parted = hired_runtime.open(BUNDLE, threads=1), 0
    for number, text in enumerate(texts):
        scene, prompt, fields = mixed(number)
        images = [] if scene is None else [PICTURES[scene]]
        count = fields.pop("max_tokens")
        whole = Request(question(prompt, len(images)), images, max_new_tokens=count, **fields)
        expected, logits = from_scratch(alone, whole)
        if text != expected.text:
            parted += 1
            gap = _gap(logits[_parting(text, expected.tokens, alone.pipeline.prompt.tokenizer)])
            assert gap <= TOLERANCE, f"request {number}: {text!r}, not {expected.text!r}"
    assert parted <= 2


def _parting(text: str, tokens: list[int], tokenizer: Any) -> int:
    """The first of `tokens` that is not in `text`."""
    stream, shown = TextStream(tokenizer), ""
    for step, token in enumerate(tokens):
        shown += stream.push(token)
        if not text.startswith(shown):
            return step
    return len(tokens) - 1


def _gap(logits: np.ndarray) -> float:
    """Between the two largest, of the largest."""
    second, first = np.sort(logits)[-2:]
    return float((first - second) / np.abs(logits).max())


@pytest.mark.parametrize("number", range(3))
def test_a_drawn_answer_depends_on_its_seed_and_not_on_the_crowd(number: int) -> None:
    prompt = questions(SCENES[number])[0].prompt
    body = asked(PICTURES[number], prompt, temperature=1.5, seed=number, max_tokens=12)
    with served(batch=3) as server, ThreadPoolExecutor(6) as clients:
        first = server.post(body).json["choices"][0]["message"]["content"]
        crowd = [clients.submit(text_of, server, each) for each in range(6)]
        again = [server.post(body).json["choices"][0]["message"]["content"] for _ in range(3)]
        for each in crowd:
            each.result()
    assert set(again) == {first}
