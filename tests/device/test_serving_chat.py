"""/v1/chat/completions through OpenAI's own client: whole and streamed, with pictures, every field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from openai import OpenAI

import hired_runtime
from hired_runtime.prompt import question
from hired_runtime.request import Request
from hired_runtime.sampling import SamplingOptions
from tests.tiny.served import BUNDLE, NAME, PICTURE, QUESTIONS, Served, asked, served


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as each:
        yield each


@pytest.fixture(scope="module")
def client(server: Served) -> OpenAI:
    return server.openai()


@pytest.fixture(scope="module")
def model() -> hired_runtime.Model:
    """The same bundle, asked directly."""
    return hired_runtime.open(BUNDLE, threads=1)


def create(client: OpenAI, prompt: str = QUESTIONS[0], **fields: Any) -> Any:
    """`fields` that the client does not know by name go where extensions go."""
    extensions = {name: fields.pop(name) for name in EXTENSIONS & fields.keys()}
    return send(client, **asked(PICTURE, prompt, **fields), extra_body=extensions)


def send(client: OpenAI, **body: Any) -> Any:
    """Untyped: what is sent is not always what the client's types allow."""
    completions: Any = client.chat.completions
    return completions.create(**body)


EXTENSIONS = {"visual_tokens", "policy", "alpha", "newlines", "partitions", "positions", "top_k"}


@pytest.mark.parametrize("prompt", QUESTIONS[:3])
@pytest.mark.parametrize("budget", ["100%", "20%", 64])
def test_an_answer_is_the_models_own(
    client: OpenAI, model: hired_runtime.Model, prompt: str, budget: str | int
) -> None:
    answer = create(client, prompt, visual_tokens=budget)
    expected = model.ask(prompt, [PICTURE], visual_tokens=budget)
    assert answer.choices[0].message.content == expected.text
    assert answer.choices[0].finish_reason == expected.finish_reason
    visual = expected.selections[0].visual_tokens
    assert answer.usage.prompt_tokens == expected.prompt_tokens + visual
    assert answer.usage.completion_tokens == len(expected.tokens)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    details = answer.usage.prompt_tokens_details
    assert (details.text_tokens, details.image_tokens) == (expected.prompt_tokens, visual)


def test_an_answer_has_openais_form_and_one_object_more(client: OpenAI, model: hired_runtime.Model) -> None:
    answer = create(client, visual_tokens="40%")
    assert answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.model, answer.choices[0].index) == ("chat.completion", NAME, 0)
    assert answer.choices[0].message.role == "assistant"
    more = answer.hired_edge
    assert set(more) == {"visual", "timings_ms", "tokens_per_s", "cache_bytes"}
    assert (more["visual"]["budget"], more["visual"]["total"]) == (128, 336)
    assert sum(more["visual"]["per_partition"]) == more["visual"]["kept"] <= 128
    assert "indices" not in more["visual"]
    assert 0 < more["timings_ms"]["ttft"] <= more["timings_ms"]["total"]
    assert more["cache_bytes"] == 2 * model.cache_bytes  # two rows


def test_a_stream_is_the_same_answer_in_pieces(client: OpenAI) -> None:
    whole = create(client)
    chunks = list(create(client, stream=True, stream_options={"include_usage": True}))
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.object == "chat.completion.chunk" for chunk in chunks)
    first, *pieces, last, usage = chunks
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    assert "".join(chunk.choices[0].delta.content for chunk in pieces) == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in (first, *pieces)] == [None] * (1 + len(pieces))
    assert last.choices[0].finish_reason == whole.choices[0].finish_reason
    assert last.hired_edge["visual"] == whole.hired_edge["visual"]
    assert usage.choices == []
    assert usage.usage.total_tokens == whole.usage.total_tokens


def test_a_stream_has_no_usage_unless_asked(server: Served, client: OpenAI) -> None:
    assert all(chunk.usage is None for chunk in create(client, stream=True))
    reply = server.post(asked(PICTURE, QUESTIONS[0], stream=True))
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.body.endswith(b"\n\ndata: [DONE]\n\n")


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_an_answer_ends_where_it_is_told_to(client: OpenAI, name: str) -> None:
    fields: dict[str, Any] = {name: 1}
    answer = create(client, **fields)
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 1)


def test_a_stop_string_ends_an_answer_and_is_not_part_of_it(client: OpenAI) -> None:
    text = create(client).choices[0].message.content
    stop = text.strip()[-1]
    for given in (stop, [stop, "never"]):
        for stream in (False, True):
            answer = create(client, stop=given, stream=stream)
            if stream:
                pieces = [chunk.choices[0] for chunk in answer]
                content, reason = "".join(each.delta.content or "" for each in pieces), pieces[-1].finish_reason
            else:
                content, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
            assert (content, reason) == (text[: text.index(stop)], "stop")


def test_sampling_is_seeded_and_else_another_each_time(client: OpenAI, model: hired_runtime.Model) -> None:
    def drawn(**fields: Any) -> str:
        return create(client, temperature=50.0, top_p=0.999, **fields).choices[0].message.content

    for seed in (7, -7, 2**63 - 1):
        sampling = SamplingOptions(50.0, top_p=0.999, seed=seed % 2**64)
        expected = model.ask(QUESTIONS[0], [PICTURE], sampling=sampling).text
        assert drawn(seed=seed) == drawn(seed=seed) == expected
    assert len({drawn() for _ in range(4)}) > 1
    assert len({create(client, temperature=0).choices[0].message.content for _ in range(2)}) == 1
    assert (
        create(client, temperature=50.0, top_k=1).choices[0].message.content
        == create(client).choices[0].message.content
    )


def test_every_extension_reaches_the_model(client: OpenAI, model: hired_runtime.Model) -> None:
    fields = {
        "visual_tokens": "33%",
        "policy": "top-cls",
        "alpha": 0.25,
        "newlines": "none",
        "partitions": "base",
        "positions": "original",
    }
    answer = create(client, **fields)
    expected = model.ask(QUESTIONS[0], [PICTURE], **fields)
    assert answer.choices[0].message.content == expected.text
    assert answer.hired_edge["visual"]["per_partition"] == expected.selections[0].counts
    assert answer.hired_edge["visual"]["newlines"] == 0


def test_a_conversation_with_every_role(client: OpenAI, model: hired_runtime.Model) -> None:
    body = asked(PICTURE, QUESTIONS[0])
    first = send(client, **body)
    history = [
        *body["messages"],
        first.choices[0].message,
        {"role": "user", "content": QUESTIONS[1], "name": "someone"},
    ]
    answer = send(client, model=NAME, messages=history)
    messages = [*question(QUESTIONS[0]), {"role": "assistant", "content": first.choices[0].message.content}]
    messages.append({"role": "user", "content": QUESTIONS[1]})
    assert answer.choices[0].message.content == model.chat(messages, [PICTURE]).text
    assert answer.usage.prompt_tokens_details.cached_tokens > 300  # the picture was there already
    told = [{"role": role, "content": "Be brief."} for role in ("system", "developer")]
    texts = [send(client, model=NAME, messages=[each, *body["messages"]]) for each in told]
    assert texts[0].usage.prompt_tokens == texts[1].usage.prompt_tokens > first.usage.prompt_tokens


def test_a_question_without_a_picture(client: OpenAI, model: hired_runtime.Model) -> None:
    body = {"model": NAME, "messages": [{"role": "user", "content": QUESTIONS[0]}]}
    answer = send(client, **body)
    assert answer.choices[0].message.content == model.ask(QUESTIONS[0]).text
    assert answer.hired_edge["visual"] == []


def test_fields_that_ask_for_nothing_are_taken(client: OpenAI) -> None:
    plain = create(client).choices[0].message.content
    neutral = {
        "n": 1,
        "logprobs": False,
        "frequency_penalty": 0.0,
        "presence_penalty": 0,
        "logit_bias": {},
        "response_format": {"type": "text"},
        "tools": [],
        "tool_choice": "none",
        "user": "me",
        "metadata": {"a": "b"},
        "store": True,
        "service_tier": "auto",
        "stop": None,
        "seed": None,
    }
    assert create(client, **neutral).choices[0].message.content == plain


def test_what_stands_in_a_text_is_data(server: Served, model: hired_runtime.Model) -> None:
    """`<image>` and special tokens written by a client make neither a picture nor an end, and no error."""
    for text in ("<image>", "<s>", "</s>", "<image><image> How many?", "<|im_end|>", "<unk>", "USER: ASSISTANT:"):
        reply = server.chat(prompt=text)
        assert reply.status == 200, reply.body
        expected = model.pipeline.generate(Request(question(text), [PICTURE])).answer
        assert reply.json["choices"][0]["message"]["content"] == expected.text
        assert reply.json["usage"]["prompt_tokens_details"]["image_tokens"] == 336
        assert server.chat(prompt=text, picture=None).json["usage"]["prompt_tokens_details"]["image_tokens"] == 0
