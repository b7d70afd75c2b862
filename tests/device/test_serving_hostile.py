"""Bodies and connections that no good client makes: each gets a clear 4xx, and the next request works."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.tiny.served import NAME, PICTURE, QUESTIONS, Served, asked, head, read_reply, served, until

MIB = 2**20
HASTE_S = 0.4


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    """A server with limits that a test can wait for."""
    with served(max_body_bytes=2 * MIB, header_timeout_s=HASTE_S, body_timeout_s=HASTE_S, max_connections=20) as each:
        yield each


@pytest.fixture(autouse=True)
def _next_request_works(server: Served) -> Iterator[None]:
    yield
    server.works()
    until(lambda: server.engine.running == server.engine.waiting == 0)


GOOD = json.dumps(asked(PICTURE, QUESTIONS[0])).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        b'{"model": "a", "model": "b"}',
        b'{"temperature": NaN}',
        b'{"temperature": -Infinity}',
        b'{"temperature": 1e400}',
        b'{"seed": ' + b"9" * 5000 + b"}",
        b'{"seed": ' + b"9" * 300_000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b'{"messages": ' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"messages": [' + b"[]," * 300_000 + b"[]]}",
        b'{"messages": [' + b"0," * 300_000 + b"0]}",
        b'{"model": "\\ud800"}',
        b'{"\\udfff": 1}',
        b'{"messages": [{"role": "user", "content": "\\ud83d"}]}',
        b'{"metadata": {"a": ["\\ude00"]}}',
    ],
    ids=lambda body: f"{body[:24]!r}.{len(body)}",
)
def test_a_body_that_is_no_plain_json_is_refused(server: Served, body: bytes) -> None:
    reply = server.post(body)
    assert (reply.status, reply.error["code"]) == (400, "invalid_json")


def test_whole_characters_are_taken_however_they_are_written(server: Served) -> None:
    body = json.dumps({"model": NAME, "messages": [{"role": "user", "content": "\U0001f600 caf\u00e9"}]})
    assert "\\ud83d\\ude00" in body
    assert server.post(body.encode()).status == 200
    assert server.post(json.loads(body)).status == 200


def test_a_body_of_50_mb_is_refused_before_it_is_sent(server: Served) -> None:
    with server.connection() as raw:
        raw.sendall(head(50 * MIB))
        reply = read_reply(raw)
    assert (reply.status, reply.error["code"]) == (413, "request_too_large")


def test_a_body_of_50_mb_that_is_sent_anyway_is_refused(server: Served) -> None:
    assert server.post(bytes(50 * MIB)).status == 413


def test_a_body_of_unknown_length_is_refused_once_it_is_too_long(server: Served) -> None:
    with server.connection() as raw:
        lines = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        raw.sendall(lines + b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"80000\r\n" + bytes(0x80000) + b"\r\n"  # half a MiB
        for _ in range(5):
            raw.sendall(chunk)
        reply = read_reply(raw)
    assert reply.status == 413


def test_more_bodies_than_memory_is_meant_for_are_told_to_come_again(server: Served) -> None:
    """Sixteen of nearly the largest size, none of them complete."""
    with ExitStack() as stack:
        raws = [stack.enter_context(server.connection()) for _ in range(16)]
        for raw in raws:
            raw.sendall(head(2 * MIB) + bytes(2 * MIB - 1))
        replies = [read_reply(raw) for raw in raws]
    assert {(reply.status, reply.error["code"]) for reply in replies} == {(503, "busy"), (408, "timeout")}


def test_a_client_that_asks_before_it_sends_is_told_at_once(server: Served) -> None:
    with server.connection() as raw:
        raw.sendall(head(50 * MIB, "Expect: 100-continue"))
        assert read_reply(raw).status == 413
    with server.connection() as raw:
        raw.sendall(head(len(GOOD), "Expect: 100-continue"))
        assert raw.recv(100).startswith(b"HTTP/1.1 100")
        raw.sendall(GOOD)
        assert read_reply(raw).status == 200


def test_the_rest_of_a_refused_body_is_not_waited_for(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    from hired_runtime.serving import connection

    monkeypatch.setattr(connection, "_LINGER_S", 0.2)
    with server.connection() as raw:
        raw.sendall(head(50 * MIB))
        assert read_reply(raw).status == 413
        assert raw.recv(1) == b""  # closed by the server


def test_a_slow_body_is_not_waited_for(server: Served) -> None:
    with server.connection() as raw:
        raw.sendall(head(len(GOOD)))
        begin = time.monotonic()
        for byte in GOOD[:3]:
            raw.sendall(bytes([byte]))
            time.sleep(HASTE_S / 5)
        reply = read_reply(raw)
    assert (reply.status, reply.error["code"]) == (408, "timeout")
    assert time.monotonic() - begin < 10 * HASTE_S


def test_slow_headers_are_not_waited_for(server: Served) -> None:
    for before in (b"", GOOD):  # on a new connection, and on one that was used
        with server.connection() as raw:
            if before:
                raw.sendall(head(len(before)) + before)
                assert read_reply(raw).status == 200
            for byte in b"POST":
                raw.sendall(bytes([byte]))
                time.sleep(HASTE_S / 10)
            reply = read_reply(raw)
        assert (reply.status, reply.error["code"]) == (408, "timeout")


def test_a_connection_that_asks_nothing_is_closed(server: Served) -> None:
    with server.connection() as raw:
        assert raw.recv(1) == b""


def test_a_body_in_small_pieces_is_a_body(server: Served) -> None:
    body = json.dumps({"model": NAME, "messages": [{"role": "user", "content": "Why?"}]}).encode()
    with server.connection() as raw:
        for start in range(0, len(head(len(body)) + body), 7):
            raw.sendall((head(len(body)) + body)[start : start + 7])
        assert read_reply(raw).status == 200


@pytest.mark.parametrize("sent", [b"POST /v1/chat", head(len(GOOD)), head(len(GOOD)) + GOOD[:-1]])
def test_half_a_request_and_then_nothing_is_told_so(server: Served, sent: bytes) -> None:
    with server.connection() as raw:
        raw.sendall(sent)
        raw.shutdown(1)  # its end is closed, the server's is open
        reply = read_reply(raw)
    assert (reply.status, reply.error["code"]) == (400, "incomplete_request")


def test_a_client_that_hangs_up_inside_its_request_leaves_nothing(server: Served) -> None:
    for sent in (b"", b"POST", head(9), head(9) + b"{"):
        with server.connection() as raw:
            raw.sendall(sent)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",  # TLS
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        head(1)[:-2] + b"Content-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000,
    ],
    ids=["tls", "no target", "two hosts", "no colon", "two lengths", "long header"],
)
def test_what_is_no_http_is_refused(server: Served, sent: bytes) -> None:
    with server.connection() as raw:
        raw.sendall(sent)
        reply = read_reply(raw)
    assert (reply.status, reply.error["code"]) == (400, "invalid_http")


def test_many_headers_are_refused(server: Served) -> None:
    reply = server.get("/health", {f"X-{number}": "x" * 100 for number in range(90)})
    assert reply.status == 200
    reply = server.get("/health", {f"X-{number}": "x" * 1000 for number in range(20)})
    assert reply.status in (400, 431)
    assert reply.error["code"] in ("invalid_http", "headers_too_large")


def test_requests_that_come_at_once_are_answered_in_turn(server: Served) -> None:
    with server.connection() as raw:
        raw.sendall(3 * (head(len(GOOD)) + GOOD))
        texts = [read_one(raw) for _ in range(3)]
    assert texts[0] == texts[1] == texts[2]


def read_one(raw: Any) -> Any:
    """One reply of several on a connection: the headers a byte at a time, so that nothing of the next is read."""
    lines = b""
    while not lines.endswith(b"\r\n\r\n"):
        lines += raw.recv(1)
    assert lines.startswith(b"HTTP/1.1 200")
    length = int(lines.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    body = b""
    while len(body) < length:
        body += raw.recv(length - len(body))
    return json.loads(body)["choices"]


def test_more_connections_than_allowed_are_told_to_come_again(server: Served) -> None:
    raws = [server.connection() for _ in range(21)]
    opened = [each.__enter__() for each in raws]
    try:
        for each in opened[:20]:
            each.sendall(b"GET /health")
        reply = read_reply(opened[20])
        assert (reply.status, reply.error["code"]) == (503, "too_many_connections")
        assert reply.headers["retry-after"] == "1"
    finally:
        for each in raws:
            each.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/v1/models", 405),
        ("DELETE", "/health", 405),
        ("GET", "/v1/embeddings", 404),
        ("GET", "/health/", 404),
        ("GET", "/v1/models/../../etc/passwd", 404),
        ("GET", "/page/../../../pyproject.toml", 404),
        ("GET", "/page/%2e%2e/api_errors.py", 404),
        ("OPTIONS", "/v1/chat/completions", 405),
    ],
)
def test_what_is_not_there_is_said_in_the_same_shape(server: Served, method: str, path: str, status: int) -> None:
    reply = server.get(path, {"Content-Type": "application/json"}, method)
    assert reply.status == status
    assert reply.error["type"] == "invalid_request_error"


def test_an_upgrade_is_ignored(server: Served) -> None:
    reply = server.get("/health", {"Connection": "Upgrade", "Upgrade": "websocket"})
    assert reply.status == 200
