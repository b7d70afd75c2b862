"""What the clients of `benchmarks.soak` do: one thing after the other, at random, and each has its right answer."""

from __future__ import annotations

import base64
import http.client
import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from benchmarks.serving import BUNDLE, SEED
from demo.scenes.compose import compose
from demo.scenes.draw import encode
from demo.scenes.questions import questions
from hired_edge.errors import HiredEdgeError

CHAT = "/v1/chat/completions"
POLICIES = ("hired", "hired-2024", "hired-placed", "uniform", "top-cls")
KNOWN, PICTURES = 40, 12
TIMEOUT_S = 120


class Reference(NamedTuple):
    """A request's body, and its answer when nothing else was asked."""

    body: dict[str, Any]
    text: str


def references(address: str) -> list[Reference]:
    """Asks a fixed set one by one."""
    client, draw = Client(address, [], random.Random(0)), random.Random(1)
    try:
        return [Reference(body, client.text(body)) for body in (_body(draw, n % PICTURES) for n in range(KNOWN))]
    finally:
        client.close()


class Client:
    """Args:
    address: of the server.
    known: what has its right answer.
    draw: chooses.
    """

    def __init__(self, address: str, known: list[Reference], draw: random.Random) -> None:
        where = urlsplit(address)
        self._host, self._port = where.hostname or "", where.port
        self._known, self._draw, self._fresh = known, draw, PICTURES
        self._connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)

    def close(self) -> None:
        self._connection.close()

    def one(self) -> str:
        """Does one of the things, and says which.

        Raises:
            HiredEdgeError: the server did something else than it should.
        """
        kinds: dict[str, tuple[Callable[[], None], int]] = {
            "known": (self._ask_known, 6),
            "about a new picture": (self._ask_new, 4),
            "conversations": (self._converse, 2),
            "left in the middle": (self._leave, 2),
            "refused": (self._refused, 2),
            "selections": (self._select, 2),
        }
        (name,) = self._draw.choices(list(kinds), [weight for _, weight in kinds.values()])
        kinds[name][0]()
        return name

    def text(self, body: dict[str, Any]) -> str:
        return self._answer(body)["choices"][0]["message"]["content"]

    def _ask_known(self) -> None:
        asked = self._draw.choice(self._known)
        text = self.text(asked.body)
        if text != asked.text:
            raise HiredEdgeError(f"the answer {text!r}", expected=repr(asked.text), fix="look at what ran beside it")

    def _ask_new(self) -> None:
        self._fresh += 1
        self.text({**_body(self._draw, self._fresh + 10_000 * self._draw.randrange(100)), "stream": False})

    def _converse(self) -> None:
        body = _body(self._draw, self._draw.randrange(PICTURES), budget="10%")
        said = self.text({**body, "max_tokens": 4})
        again = {"role": "user", "content": "Is there a red card?"}
        messages = [*body["messages"], {"role": "assistant", "content": said}, again]
        self.text({**body, "messages": messages, "max_tokens": 4})

    def _leave(self) -> None:
        body = {**_body(self._draw, self._draw.randrange(PICTURES)), "stream": True}
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        connection.request("POST", CHAT, json.dumps(body), {"Content-Type": "application/json"})
        if self._draw.random() < 0.5:
            connection.getresponse().read1(self._draw.randrange(1, 400))
        connection.close()

    def _refused(self) -> None:
        body = _body(self._draw, self._draw.randrange(PICTURES))
        wrong = self._draw.choice(
            [
                {**body, "visual_tokens": "100000"},
                {**body, "max_tokens": 10**6},
                {**body, "visual_token": "20%"},
                {**body, "messages": [{"role": "user", "content": "word " * 5000}]},
                {**body, "messages": [{"role": "user", "content": [_picture(b"\x89PNG\r\n\x1a\n" + bytes(50))]}]},
            ]
        )
        status, data = self._send(CHAT, json.dumps(wrong).encode(), "application/json")
        if not 400 <= status < 500 or "error" not in json.loads(data):
            raise HiredEdgeError(f"status {status} for a wrong request", expected="4xx", fix=data[:200].decode())

    def _select(self) -> None:
        status, data = self._send("/api/pictures", _jpeg(self._draw.randrange(PICTURES)), "image/jpeg")
        name = json.loads(data)["picture"] if status == 200 else ""
        for _ in range(5):
            asked = {"picture": name, "visual_tokens": f"{self._draw.randint(5, 100)}%", "policy": "hired"}
            status, data = self._send("/api/selections", json.dumps(asked).encode(), "application/json")
            if status not in (200, 404, 503):  # forgotten since, or others were quicker
                raise HiredEdgeError(f"status {status} for a selection", expected="200", fix=data[:200].decode())

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        status, data = self._send(CHAT, json.dumps(body).encode(), "application/json")
        if status != 200:
            raise HiredEdgeError(f"status {status}", expected="200", fix=data[:300].decode())
        return json.loads(data)

    def _send(self, path: str, body: bytes, kind: str) -> tuple[int, bytes]:
        self._connection.request("POST", path, body, {"Content-Type": kind})
        response = self._connection.getresponse()
        return response.status, response.read()


def _body(draw: random.Random, picture: int, budget: str | None = None) -> dict[str, Any]:
    prompts = [each.prompt for each in questions(compose(SEED, picture))]
    content = [_picture(_jpeg(picture)), {"type": "text", "text": draw.choice(prompts)}]
    return {
        "model": BUNDLE.name,
        "messages": [{"role": "user", "content": content}],
        "visual_tokens": budget or f"{draw.randint(10, 100)}%",
        "policy": draw.choice(POLICIES),
    }


def _picture(data: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64," + base64.b64encode(data).decode()}}


def _jpeg(number: int) -> bytes:
    return encode(compose(SEED, number))
