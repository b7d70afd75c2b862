"""One connection, as uvicorn's, with time limits: for headers, for a body, and for a client that does not read.

uvicorn has one for idle connections alone. What is said here is said without the application, in OpenAI's shape.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from hired_runtime.serving.api_errors import ApiError
from hired_runtime.serving.settings import ServerSettings

_LINGER_S = 5.0
"""How long the rest of a refused body is read and thrown away, so that the client gets to read the refusal."""


def connection_class(settings: ServerSettings, on_refused: Callable[[str, int, str], None]) -> type[H11Protocol]:
    """uvicorn makes its connections itself, from a class alone.

    Args:
        on_refused: is told the path (empty if it is not known), the status and the code of what a connection answers
            by itself.
    """
    return type("Connection", (_Connection,), {"settings": settings, "on_refused": staticmethod(on_refused)})


class _Connection(H11Protocol):
    settings: ServerSettings
    on_refused: Callable[[str, int, str], None]

    def __init__(self, config: Config, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self._phase, self._timer, self._write_timer = "", None, None
        self._limits_s = {
            "headers": self.settings.header_timeout_s,
            "body": self.settings.body_timeout_s,
            "rest": _LINGER_S,
        }

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.settings.max_connections:
            got = f"{self.settings.max_connections} connections at a time"
            self._refuse(503, f"{got}; expected fewer; try again later", "too_many_connections", retry_after_s=1)
        else:
            self._enter("headers")

    def data_received(self, data: bytes) -> None:
        if self._phase == "idle":  # whose limit is uvicorn's own
            self._enter("headers")
        super().data_received(data)
        self._follow()

    def eof_received(self) -> None:
        """A client that has closed its end: of a whole request it is gone, of half a one it hears that it was half."""
        if self._phase == "body" or (self._phase == "headers" and self.conn.trailing_data[0]):
            self._refuse(400, "the connection ended inside a request; expected a whole one", "incomplete_request")

    def connection_lost(self, exc: Exception | None) -> None:
        self._enter("over")
        self.resume_writing()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._follow()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.settings.write_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """What h11 could not read."""
        self._refuse(400, "no valid HTTP, or headers that are too long; expected a request of HTTP/1.1", "invalid_http")

    def _follow(self) -> None:
        """Enters the phase that h11's state says."""
        answered = self.cycle is None or self.cycle.response_complete
        if self.transport.is_closing():
            self._enter("over")
        elif self.conn.their_state is h11.SEND_BODY:
            self._enter("rest" if answered else "body")
        elif self.conn.their_state is not h11.IDLE:
            self._enter("answer")
        elif self._phase != "headers":
            self._enter("headers" if self.conn.trailing_data[0] else "idle")

    def _enter(self, phase: str) -> None:
        if phase == self._phase:
            return
        if self._timer is not None:
            self._timer.cancel()
        limit = self._limits_s.get(phase)
        self._phase = phase
        self._timer = None if limit is None else self.loop.call_later(limit, self._late)

    def _late(self) -> None:
        if self._phase == "rest" or (self._phase == "headers" and not self.conn.trailing_data[0]):
            self.transport.close()  # it was answered, or has asked for nothing (browsers connect ahead)
            return
        limit = self._limits_s[self._phase]
        self._refuse(408, f"a request whose {self._phase} took longer than {limit:g} s; send it faster", "timeout")

    def _refuse(self, status: int, message: str, code: str, *, retry_after_s: int | None = None) -> None:
        """Answers at once and closes; whoever works on the request hears that the client is gone."""
        cycle = self.cycle
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            asked = None if cycle is None or cycle.response_complete else cycle.scope
            self.on_refused("" if asked is None else asked["path"], status, code)
            response = ApiError(status, message, code=code, retry_after_s=retry_after_s).response()
            headers = [*response.raw_headers, (b"connection", b"close")]
            head = h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status])
            body = b"" if asked is not None and asked["method"] == "HEAD" else bytes(response.body)
            for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        self._enter("over")
        self.transport.close()
