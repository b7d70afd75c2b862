"""What a request must be before a route sees it: from an allowed place, with the key, of a known type, not too large.

Pure ASGI: nothing is buffered, and a client that leaves is noticed by the route itself.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hired_runtime.serving.api_errors import ApiError
from hired_runtime.serving.settings import ServerSettings

#: Readable without the key: the page (which then asks for it) and what a supervisor looks at.
OPEN_PATHS = ("/", "/health", "/ready")
OPEN_FOLDER = "/page/"

_PICTURES = "/api/"
"""Below it a body may be a picture itself."""
_BODIES = 8
"""So many of the largest size may be in memory at a time: those that are read, that wait and that are answered."""
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(:[0-9]*)?")


class Guard:
    """Middleware: refuses before a byte of the body is read, and counts a body's bytes while it is.

    Raises:
        ApiError: 401, 403, 413, 415, 431 or 503.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app, self._settings, self._held = app, settings, 0
        self._key = None if settings.api_key is None else _digest(settings.api_key.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._check(scope, Headers(scope=scope))
        count = 0

        async def limited() -> Message:
            nonlocal count
            message = await receive()
            size = len(message.get("body", b""))
            count, self._held = count + size, self._held + size
            if size:
                self._check_held(count)
            return message

        try:
            await self._app(scope, limited, send)
        finally:
            self._held -= count

    def _check(self, scope: Scope, headers: Headers) -> None:
        size = sum(len(name) + len(value) for name, value in scope["headers"])
        if size > self._settings.max_header_bytes:
            message = f"headers of {size} bytes; expected at most {self._settings.max_header_bytes}"
            raise ApiError(431, message, code="headers_too_large")
        if self._key is None:
            _check_host(headers.get("host", ""))
        elif not _is_open(scope["method"], scope["path"]):
            _check_key(headers.get("authorization", ""), self._key)
        if scope["method"] == "POST":
            _check_type(scope["path"], headers.get("content-type", ""))
        self._check_length(headers.get("content-length", "0"))

    def _check_length(self, length: str) -> None:
        if length.isdecimal() and int(length) > self._settings.max_body_bytes:  # h11 refuses what is no number
            raise self._too_large()

    def _check_held(self, count: int) -> None:
        most = self._settings.max_body_bytes
        if count > most:
            raise self._too_large()
        if self._held > _BODIES * most:
            message = f"requests of {self._held} bytes at a time; expected at most {_BODIES * most}; try again later"
            raise ApiError(503, message, type="server_error", code="busy", retry_after_s=1)

    def _too_large(self) -> ApiError:
        message = f"the body is too large; expected at most {self._settings.max_body_bytes} bytes; scale pictures down"
        return ApiError(413, message, code="request_too_large")


def is_loopback(host: str) -> bool:
    """Whether a name or an address means this machine and nothing else, by its text alone."""
    name = host.removeprefix("[").removesuffix("]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _check_host(host: str) -> None:
    """A page elsewhere can have its own name resolve to 127.0.0.1 (DNS rebinding): the browser sends that name."""
    match = _HOST.fullmatch(host)
    if match is None or not is_loopback(match[1]):
        message = f"the host {host[:100]!a}; expected localhost or 127.0.0.1, since the server runs without a key"
        raise ApiError(403, message, code="host_not_allowed")


def _check_key(authorization: str, key: bytes) -> None:
    scheme, _, given = authorization.partition(" ")
    # Digests, so that neither the length nor the beginning of the key shows in the time that this takes.
    right = hmac.compare_digest(_digest(given.strip().encode("latin-1")), key)
    if scheme.lower() != "bearer" or not right:
        got = "an API key that is wrong" if given else "no API key"
        raise ApiError(
            401,
            f"{got}; expected the server's, as Authorization: Bearer KEY",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )


def _check_type(path: str, content_type: str) -> None:
    """Only types that a page of another origin cannot send without being asked first."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/json" or (kind.startswith("image/") and path.startswith(_PICTURES)):
        return
    message = f"a body of the type {kind[:100]!a}; expected application/json"
    raise ApiError(415, message, code="unsupported_media_type")


def _is_open(method: str, path: str) -> bool:
    return method in ("GET", "HEAD") and (path in OPEN_PATHS or path.startswith(OPEN_FOLDER))


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
