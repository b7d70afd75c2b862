"""Clients that leave, a full queue, a server that drains, and what fails in the middle of an answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from hired_edge.errors import BundleError
from tests.tiny.served import NAME, PICTURE, QUESTIONS, Served, asked, head, read_reply, served, until

BODY = asked(PICTURE, QUESTIONS[0], policy="random")  # which it answers at length
STREAM = {**BODY, "stream": True}


@pytest.fixture(scope="module")
def slow() -> Iterator[Served]:
    """A server with one row and room for one that waits; a token takes a while."""
    with served(batch=1, queue=1, step_s=0.1) as each:
        yield each


@pytest.fixture(autouse=True)
def _idle_again(slow: Served) -> Iterator[None]:
    yield
    until(lambda: slow.engine.running == slow.engine.waiting == 0)


def sent(body: object) -> bytes:
    data = json.dumps(body).encode()
    return head(len(data)) + data


def test_a_client_that_leaves_a_stream_frees_its_row(slow: Served) -> None:
    with slow.connection() as raw:
        raw.sendall(sent(STREAM))
        received = b""
        while b'"delta":{"content"' not in received:
            received += raw.recv(4096)
        assert slow.engine.running == 1
    until(lambda: slow.engine.running == 0, timeout=0.5)  # a whole answer takes 1.6 s
    assert b"[DONE]" not in received


def test_a_client_that_leaves_before_its_answer_frees_its_row(slow: Served) -> None:
    with slow.connection() as raw:
        raw.sendall(sent(BODY))
        until(lambda: slow.engine.running == 1)
    until(lambda: slow.engine.running == 0, timeout=0.5)


def test_a_client_that_closes_its_end_after_its_request_has_left(slow: Served) -> None:
    with slow.connection() as raw:
        raw.sendall(sent(BODY))
        until(lambda: slow.engine.running == 1)
        raw.shutdown(1)
        until(lambda: slow.engine.running == 0, timeout=0.5)
        assert raw.recv(1) == b""


def test_a_client_that_waits_and_leaves_is_not_answered(slow: Served) -> None:
    with slow.connection() as first:
        first.sendall(sent(STREAM))
        until(lambda: slow.engine.running == 1)
        with slow.connection() as second:
            second.sendall(sent(BODY))
            until(lambda: slow.engine.waiting == 1)
        until(lambda: slow.engine.waiting == 0, timeout=0.5)
        assert slow.engine.running == 1


def test_openais_client_may_stop_reading(slow: Served) -> None:
    stream = slow.openai().chat.completions.create(model=NAME, messages=BODY["messages"], stream=True)
    next(iter(stream))
    stream.close()
    until(lambda: slow.engine.running == 0, timeout=0.5)


def test_a_full_queue_says_when_to_come_again(slow: Served) -> None:
    with slow.connection() as first, slow.connection() as second:
        first.sendall(sent(BODY))
        until(lambda: slow.engine.running == 1)
        second.sendall(sent(BODY))
        until(lambda: slow.engine.waiting == 1)
        reply = slow.post(BODY)
        assert (reply.status, reply.error["code"], reply.error["type"]) == (503, "queue_full", "server_error")
        assert int(reply.headers["retry-after"]) >= 1
        assert slow.get("/ready").status == 200
        with pytest.raises(openai.InternalServerError):
            slow.openai().chat.completions.create(model=NAME, messages=BODY["messages"])
        assert read_reply(first).status == read_reply(second).status == 200


def test_what_fails_in_the_middle_of_a_faked_engine_is_told_in_the_stream() -> None:
    with served(step_s=0.01) as server:
        language = server.engine.model.pipeline.backend.language
        step, broken = language.step, threading.Event()

        def faked(*args: Any, **kwargs: Any) -> Any:
            if broken.is_set():
                raise BundleError("logits of /a/bundle", expected="others", fix="look at them")
            return step(*args, **kwargs)

        language.step = faked
        stream = iter(server.openai().chat.completions.create(model=NAME, messages=BODY["messages"], stream=True))
        next(stream)
        broken.set()
        with pytest.raises(openai.APIError, match="its log says why"):
            list(stream)
        reply = server.post(BODY)
        assert (reply.status, reply.error["type"]) == (500, "server_error")
        assert "logits" not in reply.body.decode()
        broken.clear()
        server.works()


def test_a_server_that_drains_takes_nothing_new_and_finishes_what_runs() -> None:
    with served(batch=1, queue=4, step_s=0.05) as server, ThreadPoolExecutor(2) as pool:
        running = pool.submit(server.post, BODY)
        until(lambda: server.engine.running == 1)
        waiting = pool.submit(server.post, BODY)
        until(lambda: server.engine.waiting == 1)
        assert server.get("/ready").status == 200
        server.engine.drain()
        ready = server.get("/ready")
        assert (ready.status, ready.error["code"]) == (503, "shutting_down")
        assert server.get("/health").status == 200
        for reply in (waiting.result(), server.post(BODY)):
            assert (reply.status, reply.error["code"]) == (503, "shutting_down")
            assert "retry-after" in reply.headers
        assert running.result().status == 200


def test_a_client_that_never_reads_is_cut_off() -> None:
    with served(write_timeout_s=0.2) as server, server.connection() as raw:
        raw.sendall(b"GET /page/samples/scene-1.jpg HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500)
        until(lambda: not connected(raw))


def connected(raw: object) -> bool:
    import socket

    assert isinstance(raw, socket.socket)
    raw.settimeout(0)
    try:
        raw.send(b"GET")
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True
