"""What a request asks for and cannot have: refused by the name of its field, with what was built."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.tiny.served import NAME, PICTURE, Served, asked, served


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as each:
        yield each


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"n": True}, "n"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logprobs": True}, "logprobs"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"visual_token": "20%"}, "visual_token"),
        ({"visual_tokens": "101%"}, "visual_tokens"),
        ({"visual_tokens": -1}, "visual_tokens"),
        ({"visual_tokens": True}, "visual_tokens"),
        ({"visual_tokens": 10**6}, "visual_tokens"),
        ({"visual_tokens": "20%", "policy": "full"}, None),
        ({"policy": "best"}, "policy"),
        ({"policy": 3}, "policy"),
        ({"alpha": 2}, "alpha"),
        ({"alpha": "1e999999999"}, "alpha"),
        ({"policy": "x" * 10**6}, "policy"),
        ({"x" * 10**6: 1}, "x" * 997 + "..."),
        ({"newlines": "some"}, "newlines"),
        ({"partitions": "tiles"}, "partitions"),
        ({"positions": "random"}, "positions"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"seed": 2**63}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 17}, "max_tokens"),
        ({"max_completion_tokens": 17}, "max_completion_tokens"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
        ({"stop": ""}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": "x" * 257}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"usage": True}}, "stream_options.usage"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(server: Served, fields: dict[str, Any], param: str | None) -> None:
    reply = server.chat(**fields)
    assert reply.status == 400, reply.body
    assert reply.error["param"] == param
    assert reply.error["type"] == "invalid_request_error"
    assert len(reply.body) < 4000


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (None, "messages"),
        ([], "messages"),
        ("Why?", "messages"),
        (["Why?"], "messages[0]"),
        ([{"content": "Why?"}], "messages[0].role"),
        ([{"role": "tool", "content": "Why?"}], "messages[0].role"),
        ([{"role": ["user"], "content": "Why?"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": []}], "messages[0].content"),
        ([{"role": "user", "content": "Why?", "image": "x"}], "messages[0].image"),
        ([{"role": "user", "content": [{"text": "Why?"}]}], "messages[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        ([{"role": "user", "content": [{"type": "input_audio"}]}], "messages[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content[0].image_url.url"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}], "messages[0].content[0].image_url"),
    ],
)
def test_malformed_messages_are_refused_where_they_are(server: Served, messages: Any, param: str) -> None:
    reply = server.post({"model": NAME, "messages": messages})
    assert reply.status == 400
    assert reply.error["param"] == param


def test_limits_are_named_with_the_number_that_was_built(server: Served) -> None:
    long = server.chat(prompt="card " * 70)
    assert (long.status, long.error["code"], long.error["param"]) == (400, "context_length_exceeded", "messages")
    assert "64" in long.error["message"]
    longer = server.chat(prompt="card " * 10**6)
    assert (longer.status, longer.error["code"]) == (400, "context_length_exceeded")
    assert "64 text tokens" in longer.error["message"]
    for messages in (
        [{"role": "user", "content": ""}] * 65,
        [{"role": "user", "content": [{"type": "text", "text": ""}] * 66}],
    ):
        reply = server.post({"model": NAME, "messages": messages})
        assert (reply.status, reply.error["code"]) == (400, "context_length_exceeded")
    body = asked(PICTURE, "Why?")
    body["messages"][0]["content"] *= 2
    two = server.post(body)
    assert (two.status, two.error["param"]) == (400, "messages")
    assert "2 pictures asked for; expected at most 1" in two.error["message"]


def test_only_the_served_model_is_there(server: Served) -> None:
    client: Any = server.openai()
    with pytest.raises(openai.NotFoundError) as refusal:
        client.chat.completions.create(model="gpt", messages=[{"role": "user", "content": "Why?"}])
    assert refusal.value.code == "model_not_found"
    assert NAME in str(refusal.value)
    reply = server.post({"messages": [{"role": "user", "content": "Why?"}]})
    assert (reply.status, reply.error["param"]) == (400, "model")
    assert NAME in reply.error["message"]
    assert [each.id for each in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).hired_edge["limits"]["new_tokens"] == 16
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt")
