"""A real server on a free port of this machine, in a thread, and clients that say what a good one would not."""

from __future__ import annotations

import base64
import http.client
import io
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openai import OpenAI
from PIL import Image

import hired_runtime
from demo.scenes.compose import compose
from demo.scenes.draw import encode
from demo.scenes.questions import questions
from hired_runtime.serving.app import create_app
from hired_runtime.serving.engine import Engine
from hired_runtime.serving.server import Server, address_of, bound_socket
from hired_runtime.serving.settings import ServerSettings

BUNDLE = Path(__file__).parents[2] / "demo/bundle"
NAME = "cards"
PATIENCE_S = 60

SCENE = compose(2024, 12)
PICTURE = encode(SCENE)
"""A JPEG file that the demonstration model knows how to read."""
QUESTIONS = [each.prompt for each in questions(SCENE)]


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error in OpenAI's shape, which names neither a path nor a line of this program."""
        assert list(self.json) == ["error"], self.body
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}, error
        assert error["message"], error
        text = self.body.decode()
        assert not any(word in text for word in ("Traceback", ".py", "site-packages", str(Path(__file__).parents[2])))
        return error


@dataclass(frozen=True)
class Served:
    """A running server, and what to reach it by."""

    engine: Engine
    settings: ServerSettings
    address: str
    port: int

    def openai(self, **options: Any) -> OpenAI:
        return OpenAI(**{"base_url": f"{self.address}/v1", "api_key": "none", "max_retries": 0, **options})

    def get(self, path: str, headers: Mapping[str, str | bytes] | None = None, method: str = "GET") -> Reply:
        return self.exchange(method, path, None, headers or {})

    def post(
        self, body: Any, headers: Mapping[str, str | bytes] | None = None, path: str = "/v1/chat/completions"
    ) -> Reply:
        """`body`: bytes as they are, anything else as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.exchange("POST", path, data, {"Content-Type": "application/json", **(headers or {})})

    def exchange(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str | bytes]) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    @contextmanager
    def connection(self) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S) as raw:
            yield raw

    def chat(self, *, picture: bytes | str | None = PICTURE, prompt: str = QUESTIONS[0], **fields: Any) -> Reply:
        """Asks about a picture: a file's bytes, or an address as it is."""
        return self.post(asked(picture, prompt, **fields))

    def works(self) -> None:
        """The next request does; on a busy machine, once a server of short timeouts has time for it."""
        until(self._answers, timeout=10)

    def _answers(self) -> bool:
        status = self.chat(max_tokens=1).status
        assert status in (200, 408, 503), status
        return status == 200


def asked(picture: bytes | str | None, prompt: str, **fields: Any) -> dict[str, Any]:
    """The body of a request."""
    parts: list[dict[str, Any]] = [{"type": "text", "text": prompt}]
    if picture is not None:
        url = picture if isinstance(picture, str) else data_uri(picture)
        parts.insert(0, {"type": "image_url", "image_url": {"url": url}})
    return {"model": NAME, "messages": [{"role": "user", "content": parts}], **fields}


def data_uri(picture: bytes, media_type: str = "image/jpeg") -> str:
    return f"data:{media_type};base64,{base64.b64encode(picture).decode()}"


def encoded(form: str, mode: str = "RGB", size: tuple[int, int] = (40, 30), **options: Any) -> bytes:
    """A small picture file of a format that Pillow writes."""
    file = io.BytesIO()
    Image.new(mode, size).save(file, form, **options)
    return file.getvalue()


def head(body_length: int, *more: str, path: str = "/v1/chat/completions") -> bytes:
    """The headers of a request whose body is announced."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {body_length}",
        *more,
    ]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


def read_reply(raw: socket.socket) -> Reply:
    answer = http.client.HTTPResponse(raw)
    answer.begin()
    return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())


def until(condition: Callable[[], bool], timeout: float = PATIENCE_S) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.002)


class _Failures(logging.Handler):
    """What uvicorn has to say of an application that fails: nothing, if all errors are answered."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(self.format(record))


@contextmanager
def served(
    bundle: Path = BUNDLE,
    *,
    batch: int = 2,
    queue: int = 8,
    visual_tokens: str | None = None,
    step_s: float = 0.0,
    **settings: Any,
) -> Iterator[Served]:
    """Opens a bundle and serves it.

    Args:
        visual_tokens: the largest budget.
        step_s: every step of the model takes this much longer, since a small model's answers are over too soon.
    """
    model = hired_runtime.open(bundle, visual_tokens=visual_tokens, batch=batch, threads=1)
    if step_s:
        language = model.pipeline.backend.language
        step = language.step

        def slowed(*args: Any, **kwargs: Any) -> Any:
            time.sleep(step_s)
            return step(*args, **kwargs)

        language.step = slowed
    engine = Engine(model, queue=queue)
    known = ServerSettings(model_name=NAME, **settings)
    started = threading.Event()
    listening = bound_socket("127.0.0.1", 0, key=True)
    failures = _Failures()
    server = Server(create_app(engine, known), engine, known, shutdown_timeout_s=5, on_started=started.set)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    address, port = address_of(listening), listening.getsockname()[1]
    logging.getLogger("uvicorn.error").addHandler(failures)
    thread.start()
    try:
        assert started.wait(PATIENCE_S)
        yield Served(engine, known, address, port)
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        listening.close()
        engine.close(1)
        logging.getLogger("uvicorn.error").removeHandler(failures)
    assert failures.messages == []
