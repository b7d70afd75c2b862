"""A line of selections: short, and without those whose client has left. And what is read in threads, two at a time."""

from __future__ import annotations

import asyncio
import json
import select
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from hired_runtime.serving import looking
from hired_runtime.serving.reading import THREADS, Readers
from tests.tiny.served import PICTURE, Served, encoded, head, read_reply, served, until

WAIT_S = 5


class _Gate:
    """Selections stop at it, as those of a large picture would take their time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.passed = threading.Event(), 0
        choose = looking.choose

        def at_the_gate(*arguments: object) -> object:
            self.passed += 1
            assert self.open.wait(WAIT_S)
            return choose(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(looking, "choose", at_the_gate)


@pytest.fixture
def server() -> Iterator[Served]:
    with served() as each:
        yield each


def test_few_selections_wait_and_none_for_nobody(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = _Gate(monkeypatch)
    name = server.exchange("POST", "/api/pictures", PICTURE, {"Content-Type": "image/jpeg"}).json["picture"]
    body = json.dumps({"picture": name, "visual_tokens": "20%"}).encode()
    with ExitStack() as stack:
        raws = [stack.enter_context(server.connection()) for _ in range(1 + looking._WAITING + 3)]
        raws[0].sendall(head(len(body), path="/api/selections") + body)
        until(lambda: gate.passed == 1)
        for raw in raws[1:]:
            raw.sendall(head(len(body), path="/api/selections") + body)
        until(lambda: len(answered := select.select(raws, [], [], 0)[0]) == 3 or len(answered) > 3)
        refused = select.select(raws, [], [], 0)[0]
        for raw in refused:
            reply = read_reply(raw)
            assert (reply.status, reply.error["code"], reply.headers["retry-after"]) == (503, "busy", "1")
        waiting = [raw for raw in raws[1:] if raw not in refused]
        assert len(waiting) == looking._WAITING
        for raw in waiting[1:]:
            raw.close()
        assert server.get("/health").status == 200
        gate.open.set()
        assert read_reply(raws[0]).status == read_reply(waiting[0]).status == 200
    assert server.post(body, path="/api/selections").status == 200
    assert gate.passed == 3  # the first, the one that stayed, the last


def test_a_picture_is_not_looked_at_for_nobody(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    looked, free = [], threading.Event()
    look = looking.look
    monkeypatch.setattr(looking, "look", lambda *arguments: looked.append(1) or look(*arguments))
    busy = threading.Thread(
        target=lambda: asyncio.run(server.engine.call(lambda _: free.wait(WAIT_S)))  # the engine's thread, held
    )
    busy.start()
    picture = encoded("PNG")
    before = b"POST /api/pictures HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    for _ in range(5):
        with server.connection() as raw:
            raw.sendall(before + b"Content-Length: %d\r\n\r\n" % len(picture) + picture)
            until(lambda: len(server.engine._calls) > 0)
    time.sleep(0.3)  # until the server has seen the last of them come and go
    assert server.get("/health").status == 200
    free.set()
    busy.join()
    until(lambda: not server.engine._calls)
    assert server.exchange("POST", "/api/pictures", picture, {"Content-Type": "image/png"}).status == 200
    assert len(looked) == 1


def test_bodies_are_read_in_few_threads_which_are_nobody_elses() -> None:
    async def crowd() -> None:
        readers, free = Readers(), threading.Event()
        inside: list[bytes] = []

        def slow(body: bytes) -> bytes:
            inside.append(body)
            assert free.wait(WAIT_S)
            return body

        tasks = [asyncio.create_task(readers(slow, bytes([number]))) for number in range(12)]
        while len(inside) < THREADS:
            await asyncio.sleep(0.001)
        assert await asyncio.to_thread(lambda: "others") == "others"
        assert len(inside) == THREADS
        tasks[-1].cancel()  # its client has left
        free.set()
        assert await asyncio.gather(*tasks[:-1]) == [bytes([number]) for number in range(11)]
        assert len(inside) == 11

    asyncio.run(crowd())


def test_what_reading_raises_is_raised() -> None:
    async def broken() -> None:
        with pytest.raises(ValueError, match="not a number"):
            await Readers()(lambda body: int("not a number"), b"")

    asyncio.run(broken())
