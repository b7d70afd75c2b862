"""Readers of a JSON value, one a type: the value itself, or an ApiError that names the field."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

from hired_edge.strict import INTEGER_LIMIT, show
from hired_runtime.serving.api_errors import ApiError

T = TypeVar("T")
Reader = Callable[[Any, str], T]


def refuse(value: object, param: str, expected: str, code: str = "invalid_value") -> NoReturn:
    raise ApiError(400, f"{param} is {show(value)}; expected {expected}", param=param, code=code)


def text(value: Any, param: str) -> str:
    if not isinstance(value, str):
        refuse(value, param, "a string", "invalid_type")
    return value


def boolean(value: Any, param: str) -> bool:
    if not isinstance(value, bool):
        refuse(value, param, "true or false", "invalid_type")
    return value


def integer(value: Any, param: str) -> int:
    """Of 64 bits. A float that is whole counts, since some clients write 16.0."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        refuse(value, param, "an integer", "invalid_type")
    if not -INTEGER_LIMIT <= value < INTEGER_LIMIT:
        raise ApiError(400, f"{param} is an integer of {value.bit_length()} bits; expected at most 64", param=param)
    return value


def positive(value: Any, param: str) -> int:
    number = integer(value, param)
    if number < 1:
        refuse(number, param, "1 or more")
    return number


def number(value: Any, param: str) -> float:
    return value if isinstance(value, float) else float(integer(value, param))


def record(value: Any, param: str, known: Mapping[str, Reader[Any]]) -> dict[str, Any]:
    """An object with no key but the known ones, each read by its reader. What is null counts as left out."""
    if not isinstance(value, dict):
        refuse(value, param, "an object", "invalid_type")
    for key in value:
        if key not in known:
            unknown(f"{param}.{key}" if key.isidentifier() else param, key, known)
    return {key: known[key](each, f"{param}.{key}") for key, each in value.items() if each is not None}


def unknown(param: str, key: str, known: Mapping[str, object]) -> NoReturn:
    """As OpenAI words it; a field that is misspelt must not silently do nothing."""
    message = f"Unrecognized request argument supplied: {show(key)}; expected only {', '.join(known)}"
    raise ApiError(400, message, param=param, code="unknown_parameter")


def only(*neutral: object) -> Reader[None]:
    """Of a field that is not supported: a value that asks for nothing is taken, and comes to nothing."""

    def read(value: Any, param: str) -> None:
        # by type as well as by value, because True == 1
        if not any(type(value) is type(each) and value == each for each in neutral):
            expected = f"{json.dumps(neutral[0])}, or the field to be left out" if neutral else "it to be left out"
            message = f"{param} is not supported; expected {expected}"
            raise ApiError(400, message, param=param, code="unsupported_parameter")

    return read


def ignored(value: Any, param: str) -> None:
    """Of a field that would not change an answer."""
