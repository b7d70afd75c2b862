"""POST /v1/chat/completions: reads the body, submits it, and tells the answer, whole or piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hired_runtime.serving.api_errors import api_error
from hired_runtime.serving.chat_answer import DONE, Completion, encoded, event
from hired_runtime.serving.chat_request import ChatRequest, ChatRequests
from hired_runtime.serving.disconnect import ClientGoneError, while_connected
from hired_runtime.serving.engine import Engine
from hired_runtime.serving.json_body import read_json
from hired_runtime.serving.metrics import Metrics, Watch
from hired_runtime.serving.reading import Readers
from hired_runtime.serving.settings import ServerSettings
from hired_runtime.serving.ticket import ClosingError, Ticket

_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),  # so that nginx passes pieces on as they come
]


class ChatCompletions:
    """An ASGI application, because a stream and a client's disappearance are ASGI's business."""

    def __init__(self, engine: Engine, settings: ServerSettings, metrics: Metrics, readers: Readers) -> None:
        self._engine, self._settings, self._metrics, self._readers = engine, settings, metrics, readers
        vocabulary = engine.model.pipeline.prompt.tokenizer.get_vocab()
        self._requests = ChatRequests(settings, engine.model.limits, max(map(len, vocabulary)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watch = self._metrics.watch()
        body = await HttpRequest(scope, receive).body()
        try:
            chat = await while_connected(receive, self._readers(self._read, body))
            ticket = self._engine.submit(chat.request)
            try:
                await while_connected(receive, self._answer(chat, ticket, watch, scope, receive, send))
            finally:
                ticket.cancel()
        except ClientGoneError:
            self._metrics.gone()

    def _read(self, body: bytes) -> ChatRequest:
        return self._requests.read(read_json(body))

    async def _answer(
        self, chat: ChatRequest, ticket: Ticket, watch: Watch, scope: Scope, receive: Receive, send: Send
    ) -> None:
        completion = Completion(self._settings.model_name, self._engine.model.cache_bytes)
        if chat.stream:
            await self._stream(chat, ticket, watch, completion, send)
        else:
            async for _ in ticket:
                watch.piece()
            answer = encoded(completion.whole(ticket.answer))
            await Response(answer, media_type="application/json")(scope, receive, send)
            watch.end(ticket.answer)

    async def _stream(
        self, chat: ChatRequest, ticket: Ticket, watch: Watch, completion: Completion, send: Send
    ) -> None:
        piece = await anext(ticket, None)  # what goes wrong before the first piece is an error with a status
        await send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})

        async def tell(content: bytes, *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": content, "more_body": more})

        before = event(completion.role())
        try:
            while piece is not None:
                watch.piece()
                await tell(before + event(completion.piece(piece)))
                before, piece = b"", await anext(ticket, None)
        except asyncio.CancelledError:
            if not self._engine.ready:  # else the client has gone
                await self._fail(ClosingError(), tell)
            raise
        except Exception as error:
            await self._fail(error, tell)
        else:
            usage = event(completion.usage(ticket.answer)) if chat.include_usage else b""
            await tell(before + event(completion.end(ticket.answer)) + usage + DONE, more=False)
            watch.end(ticket.answer)

    async def _fail(self, error: Exception, tell: Callable[..., Awaitable[None]]) -> None:
        """Too late for a status: an event says what went wrong, as OpenAI's clients expect."""
        told = api_error(error)
        self._metrics.refused(told.code)
        await tell(event(told.body), more=False)
