"""The body of /v1/chat/completions -> a `Request` of the runtime. The rules are the tables; see docs/serving.md.

What a client may ask for is in `_SUPPORTED` and `_EXTENSIONS`. A field of OpenAI's that would change the answer and is
not supported is taken in its neutral value alone; one that changes nothing is ignored; any other is refused by name.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from hired_edge.budget import parse_alpha, parse_budget
from hired_edge.limits import Limits, check_request
from hired_edge.packing import check_newlines
from hired_edge.policies import policy_named
from hired_edge.selection import check_partitions
from hired_runtime.positions import check_positions
from hired_runtime.request import Request
from hired_runtime.sampling import SamplingOptions
from hired_runtime.serving import fields
from hired_runtime.serving.api_errors import ApiError, about
from hired_runtime.serving.chat_messages import Conversation
from hired_runtime.serving.models import unknown_model
from hired_runtime.serving.settings import ServerSettings

MAX_STOPS, MAX_STOP_CHARACTERS = 16, 256
_SEEDS = 2**64


def _stops(value: Any, param: str) -> tuple[str, ...]:
    stops = value if isinstance(value, list) else [value]
    if len(stops) > MAX_STOPS:
        raise ApiError(400, f"{param} has {len(stops)} strings; expected at most {MAX_STOPS}", param=param)
    for stop in stops:
        if not 1 <= len(fields.text(stop, param)) <= MAX_STOP_CHARACTERS:
            fields.refuse(stop, param, f"strings of 1 to {MAX_STOP_CHARACTERS} characters")
    return tuple(stops)


def _string_checked_by(check: Any) -> fields.Reader[str]:
    """Of a string that a function of the contract refuses with an InputError where it is none of its names."""

    def read(value: Any, param: str) -> str:
        with about(param):
            check(fields.text(value, param))
        return value

    return read


def _budget(value: Any, param: str) -> str | int:
    asked = value if isinstance(value, str) else fields.integer(value, param)
    with about(param):
        parse_budget(asked)
    return asked


def _alpha(value: Any, param: str) -> float:
    asked = fields.number(value, param)  # no string: parse_alpha would compute "1e999999999"
    with about(param):
        parse_alpha(asked)
    return asked


def _sampling(name: str, read: fields.Reader[Any]) -> fields.Reader[Any]:
    """Of one of `SamplingOptions`, which knows its range."""

    def check(value: Any, param: str) -> Any:
        number = read(value, param)
        with about(param):
            SamplingOptions(**{name: number})
        return number

    return check


_STREAM_OPTIONS: dict[str, fields.Reader[Any]] = {
    "include_usage": fields.boolean,
    "include_obfuscation": fields.ignored,
}
_SUPPORTED: dict[str, fields.Reader[Any]] = {
    "model": fields.text,
    "messages": lambda value, param: value,  # read once everything else is known to be right
    "stream": fields.boolean,
    "stream_options": lambda value, param: fields.record(value, param, _STREAM_OPTIONS),
    "max_tokens": fields.positive,
    "max_completion_tokens": fields.positive,
    "temperature": _sampling("temperature", fields.number),
    "top_p": _sampling("top_p", fields.number),
    "seed": lambda value, param: fields.integer(value, param) % _SEEDS,
    "stop": _stops,
}
_EXTENSIONS: dict[str, fields.Reader[Any]] = {
    "top_k": _sampling("top_k", fields.integer),
    "visual_tokens": _budget,
    "policy": _string_checked_by(policy_named),
    "alpha": _alpha,
    "newlines": _string_checked_by(check_newlines),
    "partitions": _string_checked_by(check_partitions),
    "positions": _string_checked_by(check_positions),
}
_NEUTRAL: dict[str, fields.Reader[Any]] = {
    "n": fields.only(1),
    "logprobs": fields.only(False),
    "top_logprobs": fields.only(0),
    "frequency_penalty": fields.only(0, 0.0),
    "presence_penalty": fields.only(0, 0.0),
    "logit_bias": fields.only({}),
    "response_format": fields.only({"type": "text"}),
    "modalities": fields.only(["text"]),
    "tools": fields.only([]),
    "tool_choice": fields.only("none", "auto"),
    "functions": fields.only([]),
    "function_call": fields.only("none", "auto"),
    "reasoning_effort": fields.only("none"),
    "verbosity": fields.only("medium"),
    "audio": fields.only(),
    "moderation": fields.only(),
    "prediction": fields.only(),
    "web_search_options": fields.only(),
}
_IGNORED = (
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
)
FIELDS = {**_SUPPORTED, **_EXTENSIONS, **_NEUTRAL, **dict.fromkeys(_IGNORED, fields.ignored)}
_OF_REQUEST = ("visual_tokens", "alpha", "newlines", "partitions", "positions", "stop")


@dataclass(frozen=True)
class ChatRequest:
    """What is asked of the model, and how the client wants to hear it.

    Args:
        stream: in pieces, as they come.
        include_usage: a last chunk with the counts.
    """

    request: Request
    stream: bool
    include_usage: bool


class ChatRequests:
    """Reads bodies for one opened model.

    Args:
        limits: what it was opened with.
        longest_token: characters of the vocabulary's longest entry: what bounds a text before it is encoded.
    """

    def __init__(self, settings: ServerSettings, limits: Limits, longest_token: int) -> None:
        self._settings, self._limits = settings, limits
        self._most_characters = limits.text_tokens * longest_token

    def read(self, body: dict[str, Any]) -> ChatRequest:
        """Raises ApiError: 400, or 404 for a model that is not served, about the field that is wrong."""
        for key in body:
            if key not in FIELDS:
                fields.unknown(key, key, {**_SUPPORTED, **_EXTENSIONS})
        values = {key: FIELDS[key](value, key) for key, value in body.items() if value is not None}
        self._check_model(values.get("model"))
        stream, stream_options = values.get("stream", False), values.get("stream_options", {})
        if stream_options and not stream:
            fields.refuse(body["stream_options"], "stream_options", 'it together with "stream": true only')
        new_tokens = self._new_tokens(values)
        conversation = Conversation(values.get("messages"), self._settings.media, self._limits, self._most_characters)
        request = Request(
            messages=conversation.messages,
            images=conversation.pictures,
            policy=values.get("policy", self._settings.policy),
            max_new_tokens=new_tokens,
            sampling=_sampling_options(values),
            reuse=True,
            **{name: values[name] for name in _OF_REQUEST if name in values},
        )
        return ChatRequest(request, stream, stream_options.get("include_usage", False))

    def _check_model(self, name: str | None) -> None:
        served = self._settings.model_name
        if name is None:
            raise ApiError(
                400, f'you must provide a model parameter; here it is "{served}"', param="model", code="missing_field"
            )
        if name != served:
            raise unknown_model(name, served)

    def _new_tokens(self, values: dict[str, Any]) -> int | None:
        """`max_tokens` is the older name of `max_completion_tokens`."""
        given = {name: values[name] for name in ("max_completion_tokens", "max_tokens") if name in values}
        if len(set(given.values())) > 1:
            fields.refuse(
                given["max_tokens"], "max_tokens", "the same as max_completion_tokens, or only one of the two"
            )
        for name, count in given.items():
            with about(name):
                check_request(self._limits, visual=0, text=0, new=count)
        return next(iter(given.values()), None)


def _sampling_options(values: dict[str, Any]) -> SamplingOptions:
    """Greedy by default. Without a seed every draw is another one."""
    return SamplingOptions(
        temperature=values.get("temperature", 0.0),
        top_k=values.get("top_k", 0),
        top_p=values.get("top_p", 1.0),
        seed=values["seed"] if "seed" in values else secrets.randbits(63),
    )
