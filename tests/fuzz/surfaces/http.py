"""A connection to the server: whatever is sent, it answers in OpenAI's shape or closes, and fails at nothing."""

from __future__ import annotations

import errno
import json
import logging
import re
import socket
import threading
from pathlib import Path

import hired_runtime
from hired_runtime.serving.app import create_app
from hired_runtime.serving.engine import Engine
from hired_runtime.serving.server import Server
from hired_runtime.serving.settings import ServerSettings
from tests.fuzz.mutators import http
from tests.fuzz.surface import Feed, Surface
from tests.fuzz.surfaces.chat import BUNDLE, bodies
from tests.fuzz.surfaces.pictures import seeds as drawn

PATIENCE_S, WAITING_S = 8.0, 0.03
_STATUS, _CODE = re.compile(rb"HTTP/1\.1 ([0-9]{3}) "), re.compile(rb'"code": "(\w+)"')
_JSON, _ONCE = b"Content-Type: application/json", (b"Connection: close",)


class RefusedError(Exception):
    """An answer of 400 or more, as it should be."""


def seeds() -> dict[str, bytes]:
    paths = (b"/", b"/health", b"/metrics", b"/v1/models", b"/v1/models/cards", b"/api/settings", b"/page/app.js")
    found = {f"get-{i}": http.request(path, None, *_ONCE) for i, path in enumerate(paths)}
    for name, body in bodies().items():
        small = json.dumps({**body, "max_tokens": 1, "max_completion_tokens": 1}).encode()
        found[f"chat-{name}"] = http.request(b"/v1/chat/completions", small, _JSON, *_ONCE)
    found["picture"] = http.request(b"/api/pictures", drawn()["png"], b"Content-Type: image/png", *_ONCE)
    asked = json.dumps({"picture": "0" * 64, "visual_tokens": "20%", "policy": "hired"}).encode()
    return found | {"selection": http.request(b"/api/selections", asked, _JSON, *_ONCE)}


def opened(folder: Path) -> Feed:
    """A real server, on a socket of the file system: a hundred thousand connections would use up the ports."""
    settings = ServerSettings("cards", max_body_bytes=2**20, header_timeout_s=2, body_timeout_s=2, write_timeout_s=2)
    engine = Engine(hired_runtime.open(BUNDLE, batch=2, threads=1), queue=8)
    failures, started = _Failures(), threading.Event()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(folder / "server"))
    listening.listen(64)
    server = Server(create_app(engine, settings), engine, settings, on_started=started.set)
    for name in ("uvicorn.error", "hired_runtime"):
        logging.getLogger(name).addHandler(failures)
    threading.Thread(target=server.run, args=([listening],), daemon=True).start()
    assert started.wait(60)

    def feed(data: bytes) -> None:
        answer = _exchange(folder / "server", data)
        if failures.found:
            raise AssertionError(failures.found.pop())
        _check(answer)

    return feed


def _exchange(address: Path, data: bytes) -> bytes:
    """Sends everything and reads to the end; where nothing more comes for a while, it says that this was all."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(address))
        received, ended = list[bytes](), False
        try:
            client.settimeout(PATIENCE_S)
            client.sendall(data)
            while True:
                client.settimeout(PATIENCE_S if ended else WAITING_S)
                try:
                    piece = client.recv(2**16)
                except TimeoutError:
                    if ended:
                        raise AssertionError("no answer and no end") from None
                    client.shutdown(socket.SHUT_WR)
                    ended = True
                    continue
                if not piece:
                    break
                received.append(piece)
        except (BrokenPipeError, ConnectionResetError, OSError) as error:  # it has heard enough
            if not isinstance(error, ConnectionError) and error.errno != errno.ENOTCONN:
                raise
        return b"".join(received)


def _check(answer: bytes) -> None:
    """Of every answer on the connection."""
    statuses = [int(status) for status in _STATUS.findall(answer)]
    if any(status >= 500 and status != 503 for status in statuses):
        raise AssertionError(answer[-2000:])
    codes = {code.decode() for code in _CODE.findall(answer)}
    if any(status >= 400 for status in statuses):
        raise RefusedError(", ".join(map(str, sorted({*statuses}))) + " " + ", ".join(sorted(codes)))


class _Failures(logging.Handler):
    """What the server has to say of itself that is no answer."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(self.format(record))


SURFACE = Surface(
    "the server's connections",
    opened,
    seeds,
    http.mutated,
    errors=lambda: (RefusedError,),
    spend_mib=128,
)
