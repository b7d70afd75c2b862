"""Whatever a route raises -> an answer in the shape of OpenAI's errors, without a path or a traceback in it."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hired_edge.errors import HiredEdgeError, InputError, LimitError, NumericalError
from hired_runtime.serving.disconnect import ClientGoneError
from hired_runtime.serving.ticket import ClosingError, QueueFullError, StuckError

log = logging.getLogger("hired_runtime.serving")

# The words of `hired_edge.limits` -> the request's field, and OpenAI's code where it has one.
_LIMITS = {
    "visual tokens": ("visual_tokens", "limit_exceeded"),
    "text tokens": ("messages", "context_length_exceeded"),
    "new tokens": ("max_completion_tokens", "limit_exceeded"),
    "pictures": ("messages", "limit_exceeded"),
    "tiles of a picture": ("messages", "limit_exceeded"),
}
_OPTION = re.compile(r"--([a-z][a-z-]*)")
_CLOSING_RETRY_S = 10
_LONGEST = 1000
_HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}


class ApiError(Exception):
    """A request that is answered with an error.

    Args:
        status: of HTTP.
        message: for the client: it names no file of this machine. Shortened, since it may quote the request.
        type: as OpenAI has it: "invalid_request_error" or "server_error".
        param: the field of the request.
        code: one word that a program can test.
        retry_after_s: when it is worth asking again.
        headers: others that belong to the status (`Allow`, `WWW-Authenticate`).
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.type, self.code = status, type, code
        self.message, self.param = _short(message), None if param is None else _short(param)
        self.retry_after_s, self.headers = retry_after_s, headers or {}

    @property
    def body(self) -> dict[str, Any]:
        """{"error": {"message", "type", "param", "code"}}."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        headers = dict(self.headers)
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        # ASCII, because a message may quote what UTF-8 cannot hold
        content = json.dumps(self.body)
        return Response(content, self.status, headers, media_type="application/json")


def api_error(error: Exception) -> ApiError:
    """What a client is told about any exception. What is no fault of the client goes to the log."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException):
        code = _HTTP_CODES.get(error.status_code)
        return ApiError(error.status_code, error.detail, code=code, headers=dict(error.headers or {}))
    if isinstance(error, QueueFullError):
        return _unavailable(str(error), "queue_full", error.retry_after_s)
    if isinstance(error, ClosingError):
        return _unavailable(str(error), "shutting_down", _CLOSING_RETRY_S)
    if isinstance(error, StuckError):
        return _unavailable(str(error), "engine_stuck", _CLOSING_RETRY_S)
    if isinstance(error, LimitError):
        param, code = next((found for words, found in _LIMITS.items() if words in error.got), (None, "limit_exceeded"))
        return ApiError(400, str(error), param=param, code=code)
    if isinstance(error, InputError):
        return ApiError(400, _for_clients(error), code="invalid_value")
    if isinstance(error, HiredEdgeError):  # a bundle or a machine that is broken; the message may name files
        log.error("%s", error)
        if isinstance(error, NumericalError):
            message = "the engine gave numbers that are not finite for this request; nothing was answered from them"
            return ApiError(500, message, type="server_error", code="not_finite")
    else:
        log.error("a request failed", exc_info=error)
    message = "the server failed on this request; its log says why"
    return ApiError(500, message, type="server_error", code="internal_error")


class Errors:
    """Middleware: answers whatever is raised inside it.

    Args:
        on_refused: is told the code of each.
    """

    def __init__(self, app: ASGIApp, on_refused: Callable[[str | None], None]) -> None:
        self._app, self._on_refused = app, on_refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = ended = False

        async def noted(message: Message) -> None:
            nonlocal started, ended
            started = started or message["type"] == "http.response.start"
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except (ClientDisconnect, ClientGoneError):
            pass  # nobody waits for an answer
        except asyncio.CancelledError:  # the server ends, and this took longer than it waits
            if not started:
                await api_error(ClosingError()).response()(scope, receive, send)
            elif not ended:
                raise
        except Exception as error:
            if started:
                raise  # uvicorn writes it to the log and closes the connection
            told = api_error(error)
            self._on_refused(told.code)
            await told.response()(scope, receive, send)


@contextmanager
def about(param: str) -> Iterator[None]:
    """Names the request's field in what is raised inside."""
    try:
        yield
    except (InputError, LimitError) as error:
        told = api_error(error)
        told.param = param
        raise told from None


def _unavailable(message: str, code: str, retry_after_s: int) -> ApiError:
    return ApiError(503, message, type="server_error", code=code, retry_after_s=retry_after_s)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _for_clients(error: InputError) -> str:
    """The message with the command's options as the request's fields: `--visual-tokens` is `visual_tokens` here."""
    return _OPTION.sub(lambda option: option[1].replace("-", "_"), str(error))
