"""Any body at all is read, or refused in words: never an exception of another kind, and never for long."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hired_runtime
from hired_runtime.request import Request
from hired_runtime.serving.api_errors import ApiError
from hired_runtime.serving.chat_request import FIELDS, ChatRequest, ChatRequests
from hired_runtime.serving.json_body import read_json
from hired_runtime.serving.settings import ServerSettings
from tests.tiny.served import BUNDLE, NAME, PICTURE, data_uri

LIMITS = hired_runtime.open(BUNDLE).limits
READER = ChatRequests(ServerSettings(NAME), LIMITS, longest_token=16)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["20%", "hired", "user", ""]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)
PARTS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["text", "image_url"]) | VALUES,
        "text": st.text(max_size=20) | VALUES,
        "image_url": st.fixed_dictionaries(
            {},
            optional={
                "url": st.sampled_from([data_uri(PICTURE), data_uri(b""), "file:///x", "http://x"]) | VALUES,
                "detail": st.sampled_from(["auto", "low"]) | VALUES,
            },
        )
        | VALUES,
    },
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "role": st.sampled_from(["user", "system", "assistant"]) | VALUES,
            "content": st.text(max_size=20) | st.lists(PARTS, max_size=3) | VALUES,
            "name": VALUES,
            "tool_calls": VALUES,
        },
    ),
    max_size=3,
)
BODIES = st.fixed_dictionaries(
    {"model": st.just(NAME), "messages": MESSAGES | VALUES},
    optional={name: VALUES for name in FIELDS if name not in ("model", "messages")},
)


def read(body: bytes) -> ChatRequest | None:
    """What it asks for, or None where it was refused properly."""
    try:
        return READER.read(read_json(body))
    except ApiError as caught:
        error = caught
    assert 400 <= error.status < 500
    json.dumps(error.body).encode()
    assert "\n" not in error.message
    return None


@settings(max_examples=60, deadline=2000)
@given(BODIES)
def test_any_json_is_read_or_refused(body: dict[str, Any]) -> None:
    chat = read(json.dumps(body).encode("utf-8", "replace"))
    assert chat is None or isinstance(chat.request, Request)


@settings(max_examples=150, deadline=2000)
@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    assert read(body) is None


@given(st.sampled_from(sorted(FIELDS)), VALUES)
@settings(max_examples=150, deadline=2000)
def test_any_value_of_any_field_is_taken_or_refused(name: str, value: Any) -> None:
    body = {"model": NAME, "messages": [{"role": "user", "content": "Why?"}], name: value}
    read(json.dumps(body).encode("utf-8", "replace"))


def test_a_field_that_is_null_is_left_out() -> None:
    body = {
        "messages": [{"role": "user", "content": "Why?", "name": None, "tool_calls": None}],
        **dict.fromkeys(FIELDS),
    }
    body = {**body, "model": NAME, "messages": [{"role": "user", "content": "Why?"}]}
    chat = read(json.dumps(body).encode())
    assert chat is not None
    assert (chat.stream, chat.include_usage, chat.request.max_new_tokens, chat.request.policy) == (
        False,
        False,
        None,
        "hired",
    )


def test_a_seed_that_is_negative_is_another_one() -> None:
    def seed(value: int) -> int:
        chat = read(json.dumps({"model": NAME, "messages": [{"role": "user", "content": ""}], "seed": value}).encode())
        assert chat is not None
        return chat.request.sampling.seed

    seeds = [seed(value) for value in (0, 1, -1, 2**63 - 1, -(2**63))]
    assert len(set(seeds)) == 5
    assert min(seeds) == 0


@pytest.mark.parametrize("policy", ["full", "hired"])
def test_the_servers_policy_is_the_default(policy: str) -> None:
    reader = ChatRequests(ServerSettings(NAME, policy=policy), LIMITS, longest_token=16)
    body = {"model": NAME, "messages": [{"role": "user", "content": "Why?"}]}
    assert reader.read(body).request.policy == policy
