"""The routes of a server over one engine, put together."""

from __future__ import annotations

from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hired_runtime.serving import looking
from hired_runtime.serving.api_errors import Errors
from hired_runtime.serving.chat import ChatCompletions
from hired_runtime.serving.engine import Engine
from hired_runtime.serving.guard import Guard
from hired_runtime.serving.headers import SafeHeaders
from hired_runtime.serving.metrics import Counting, Metrics
from hired_runtime.serving.models import Models
from hired_runtime.serving.reading import Readers
from hired_runtime.serving.settings import ServerSettings
from hired_runtime.serving.ticket import ClosingError


def create_app(engine: Engine, settings: ServerSettings) -> Starlette:
    """An ASGI application; whoever runs it also ends the engine.

    Its `state.on_refused` is to be told of requests that a connection has answered by itself.
    """
    metrics = Metrics(engine)
    models, readers = Models(engine, settings), Readers()
    routes = [
        Route("/v1/chat/completions", ChatCompletions(engine, settings, metrics, readers), methods=["POST"]),
        Route("/v1/models", models.all),
        Route("/v1/models/{name:path}", models.one),
        Route("/health", _health),
        Route("/ready", partial(_ready, engine)),
        Route("/metrics", metrics.answer),
        *looking.routes(engine, settings, readers),
    ]

    middleware = [
        Middleware(SafeHeaders),
        Middleware(Counting, metrics=metrics),
        Middleware(Errors, on_refused=metrics.refused),
        Middleware(Guard, settings=settings),
    ]
    app = Starlette(routes=routes, middleware=middleware, exception_handlers={HTTPException: _raised})
    app.state.on_refused = metrics.refused_unheard
    app.router.redirect_slashes = False  # it would send clients to whatever name they have called the server by
    return app


async def _raised(request: Request, error: Exception) -> Response:
    """Starlette would answer in plain text; `Errors` does it in OpenAI's shape."""
    raise error


async def _health(request: Request) -> Response:
    """The process answers."""
    return JSONResponse({"status": "ok"})


async def _ready(engine: Engine, request: Request) -> Response:
    """Whether it is worth sending a question."""
    if not engine.ready:
        raise ClosingError
    return JSONResponse({"status": "ready"})
