"""A request's bytes -> plain JSON data that is safe to look at: strict, finite, encodable, and not a bomb.

Knows no field. What costs time or memory out of proportion to the bytes that were sent is refused before it is parsed.
"""

from __future__ import annotations

import math
from typing import Any

from hired_edge import strict
from hired_edge.errors import BundleError
from hired_runtime.serving.api_errors import ApiError

MAX_MARKS = 100_000
"""Commas, and opening brackets, in a body. A text that fits a context has fewer; 20 MB of `[],` would take 500 MB."""
MAX_DEPTH = 32
"""Of nesting; a conversation has seven levels."""


def read_json(data: bytes) -> dict[str, Any]:
    """The object that a body holds.

    Raises:
        ApiError: 400: no UTF-8, no strict JSON, no object, half a character, a number that is not finite.
    """
    marks = data.count(b",") + data.count(b"[") + data.count(b"{")
    if marks > MAX_MARKS:
        raise _refused(f"the body has {marks} commas and brackets; expected at most {MAX_MARKS}")
    try:
        parsed = strict.loads(data.decode(), "the body")
    except UnicodeDecodeError as error:
        raise _refused(f"the body is not UTF-8 at byte {error.start}; expected JSON in UTF-8") from None
    except BundleError as error:
        raise _refused(f"{error.got}; expected {error.expected}") from None
    if not isinstance(parsed, dict):
        raise _refused(f"the body is {strict.show(parsed)}; expected an object")
    _check(parsed, "the body", MAX_DEPTH)
    return parsed


def _check(value: object, where: str, depth: int) -> None:
    """Refuses what JSON can say and an answer could not repeat. `where` is a field at the top, for the message."""
    if isinstance(value, str):
        _check_text(value, where)
    elif isinstance(value, float) and not math.isfinite(value):
        raise _refused(f"{where} holds a number beyond a double's range; expected finite numbers")
    elif isinstance(value, (list, dict)):
        if depth == 0:
            raise _refused(f"{where} is nested more than {MAX_DEPTH} levels deep; expected plain JSON")
        entries = value.items() if isinstance(value, dict) else ((where, each) for each in value)
        for key, each in entries:
            _check_text(key, where)
            _check(each, where if depth < MAX_DEPTH else strict.show(key), depth - 1)


def _check_text(text: str, where: str) -> None:
    try:
        if not text.isascii():  # which Python knows without looking
            text.encode()
    except UnicodeEncodeError as error:
        raise _refused(
            f"{where} holds half a character (a lone surrogate) at {error.start}; expected whole ones"
        ) from None


def _refused(message: str) -> ApiError:
    return ApiError(400, message, code="invalid_json")
