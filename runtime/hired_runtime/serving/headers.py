"""Headers that every answer has: what a browser may do with it, and that answers are not kept."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
    b"cross-origin-resource-policy": b"same-origin",
    b"content-security-policy": b"default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; "
    b"form-action 'self'; frame-ancestors 'none'",
}
_NOT_STORED = ("/v1/", "/api/", "/metrics", "/health", "/ready")


class SafeHeaders:
    """Middleware: adds them where a route has not said otherwise. There are no CORS headers: no other origin reads."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        added = list(HEADERS.items())
        if scope["path"].startswith(_NOT_STORED):
            added.append((b"cache-control", b"no-store"))

        async def extended(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(each for each in added if each[0] not in own)]
            await send(message)

        await self._app(scope, receive, extended)
