"""The engine's thread: a bounded queue, requests side by side, those that leave early, and its end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hired_runtime
from demo.scenes.compose import compose
from demo.scenes.draw import encode
from demo.scenes.questions import questions
from hired_edge.errors import BundleError, InputError, LimitError
from hired_runtime.prompt import question
from hired_runtime.request import Request
from hired_runtime.serving.engine import Engine
from hired_runtime.serving.ticket import ClosingError, QueueFullError, StuckError, Ticket
from tests.tiny.alike import check_alike, from_scratch

ROOT = Path(__file__).parents[2]
SCENES = [compose(2024, number) for number in range(6)]
PICTURES = [encode(scene) for scene in SCENES]
ASKED = [(scene, each.prompt) for scene in range(6) for each in questions(SCENES[scene])]
COUNT = 48
BUDGETS = ("10%", "20%", "40%", 50)


@pytest.fixture
def engine() -> Iterator[Engine]:
    model = hired_runtime.open(ROOT / "demo/bundle", visual_tokens="40%", batch=3, threads=1)
    engine = Engine(model, queue=20)
    yield engine
    engine.close()


def request(number: int, **options: Any) -> Request:
    scene, prompt = ASKED[number % len(ASKED)]
    options = {"visual_tokens": BUDGETS[number % len(BUDGETS)], "reuse": True, **options}
    return Request(question(prompt), [PICTURES[scene]], **options)


async def read(ticket: Ticket) -> str:
    return "".join([piece async for piece in ticket])


def within(seconds: float, work: Callable[[], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        return await asyncio.wait_for(work(), seconds)

    return asyncio.run(run())


def test_what_runs_side_by_side_gets_the_tokens_that_it_would_get_alone(engine: Engine) -> None:
    """Or a first difference at a near-tie. Over HTTP, and with more of them: test_serving_crowd.py."""
    asked = [request(7 * number, max_new_tokens=1 + number % 9) for number in range(COUNT)]
    most = 0

    async def client(numbers: range) -> list[tuple[int, list[int]]]:
        nonlocal most
        answered = []
        for number in numbers:
            ticket = engine.submit(asked[number])
            text = await read(ticket)
            most = max(most, engine.running)
            assert text == ticket.answer.text
            answered.append((number, ticket.answer.tokens))
        return answered

    async def clients() -> list[list[tuple[int, list[int]]]]:
        return await asyncio.gather(*(client(range(first, COUNT, 16)) for first in range(16)))

    answers = dict(pair for each in within(120, clients) for pair in each)
    assert len(answers) == COUNT
    assert most > 1, "nothing ran side by side"
    alone = hired_runtime.open(ROOT / "demo/bundle", visual_tokens="40%", threads=1)
    for number, tokens in answers.items():
        expected, logits = from_scratch(alone, Request(**{**vars(asked[number]), "reuse": False}))
        check_alike(tokens, expected.tokens, logits)


def test_a_full_queue_says_when_to_come_again(engine: Engine) -> None:
    async def overload() -> tuple[QueueFullError, list[str]]:
        gate = threading.Event()
        held = asyncio.ensure_future(engine.call(lambda _: gate.wait()))
        await asyncio.sleep(0.05)  # the engine is busy with that
        tickets = [engine.submit(request(number, max_new_tokens=2)) for number in range(20)]
        with pytest.raises(QueueFullError) as refusal:
            engine.submit(request(0))
        gate.set()
        await held
        return refusal.value, [await read(ticket) for ticket in tickets]

    refusal, texts = within(60, overload)
    assert 1 <= refusal.retry_after_s <= 60
    assert all(texts)


def test_a_cancelled_request_frees_its_row_before_the_next_token(engine: Engine) -> None:
    async def leave() -> tuple[int, int]:
        steps, step = [], engine.model.pipeline.backend.language.step
        language = engine.model.pipeline.backend.language
        language.step = lambda *args: (steps.append(args[0].shape), step(*args))[1]  # type: ignore[method-assign]
        ticket = engine.submit(request(0, max_new_tokens=16, policy="random", stop=()))
        await ticket.__anext__()
        ticket.cancel()
        seen = len(steps)
        while engine.running:
            await asyncio.sleep(0.001)
        return seen, len(steps)

    before, after = within(30, leave)
    assert after <= before + 2  # one that was on its way, and one token


def test_a_cancelled_request_leaves_the_queue_at_once(engine: Engine) -> None:
    async def leave() -> list[int]:
        gate = threading.Event()
        held = asyncio.ensure_future(engine.call(lambda _: gate.wait()))
        await asyncio.sleep(0.05)
        tickets = [engine.submit(request(number)) for number in range(3)]
        lengths = [engine.waiting]
        tickets[1].cancel()
        lengths.append(engine.waiting)
        gate.set()
        await held
        await asyncio.gather(read(tickets[0]), read(tickets[2]))
        return lengths

    assert within(30, leave) == [3, 2]


def test_what_is_wrong_with_a_request_is_told_to_it_alone(engine: Engine) -> None:
    async def ask() -> list[Any]:
        good = [engine.submit(request(number)) for number in range(3)]
        bad = [
            engine.submit(Request(question("Why?"), [b"no picture"])),
            engine.submit(request(1, visual_tokens="100%")),
            engine.submit(Request(question("Why?", 2), [PICTURES[0]])),
        ]
        return await asyncio.gather(*(read(ticket) for ticket in (*good, *bad)), return_exceptions=True)

    texts = within(30, ask)
    assert all(isinstance(text, str) and text for text in texts[:3])
    assert [type(error) for error in texts[3:]] == [InputError, LimitError, InputError]


def test_a_faked_broken_engine_is_told_to_all_that_ran_and_the_next_request_works(engine: Engine) -> None:
    language = engine.model.pipeline.backend.language
    step, healed, calls = language.step, threading.Event(), count()

    def faked(*args: Any) -> Any:
        """It breaks after its second step, when at least one request runs."""
        return step(*args) * (np.nan if next(calls) >= 2 and not healed.is_set() else 1)

    language.step = faked  # type: ignore[method-assign]

    async def ask() -> tuple[list[Any], str]:
        tickets = [engine.submit(request(number)) for number in range(2)]
        results = await asyncio.gather(*map(read, tickets), return_exceptions=True)
        healed.set()
        return results, await read(engine.submit(request(0)))

    results, text = within(30, ask)
    assert any(isinstance(result, BundleError) for result in results)
    assert text


def test_what_a_call_raises_is_raised_where_it_was_awaited(engine: Engine) -> None:
    async def ask() -> int:
        with pytest.raises(ZeroDivisionError):
            await engine.call(lambda _: 1 // 0)
        return await engine.call(lambda pipeline: pipeline.limits.batch)

    assert within(30, ask) == 3


def test_whoever_waits_for_a_call_is_told_that_the_engine_is_stuck(engine: Engine) -> None:
    """One call is inside the engine, the other waits behind it; the engine comes back when nobody listens any more."""
    back = threading.Event()

    async def end() -> list[Any]:
        calls = [asyncio.ensure_future(engine.call(lambda _: back.wait(60))) for _ in range(2)]
        while engine.inside_s == 0:
            await asyncio.sleep(0.001)
        engine.give_up()
        told = await asyncio.gather(*calls, return_exceptions=True)
        back.set()
        while engine._thread.is_alive():
            await asyncio.sleep(0.001)
        return told

    assert [type(each) for each in within(30, end)] == [StuckError, StuckError]


def test_draining_finishes_what_runs_and_refuses_the_rest(engine: Engine) -> None:
    async def end() -> list[Any]:
        running = [engine.submit(request(number, max_new_tokens=16)) for number in range(3)]
        for ticket in running:
            await ticket.__anext__()
        waiting = [engine.submit(request(number)) for number in range(2)]
        engine.drain()
        with pytest.raises(ClosingError):
            engine.submit(request(0))
        with pytest.raises(ClosingError):
            await engine.call(lambda _: None)
        return await asyncio.gather(*(read(ticket) for ticket in (*running, *waiting)), return_exceptions=True)

    results = within(30, end)
    assert all(isinstance(result, str) for result in results[:3])
    assert sum(isinstance(result, ClosingError) for result in results) <= 2
    assert not engine.ready


def test_closing_gives_up_what_takes_too_long(engine: Engine) -> None:
    language = engine.model.pipeline.backend.language
    step, slow = language.step, threading.Event()

    def faked(*args: Any) -> Any:
        slow.wait(0.2)
        return step(*args)

    language.step = faked  # type: ignore[method-assign]

    async def end() -> Any:
        ticket = engine.submit(request(0, policy="random", max_new_tokens=16))
        await ticket.__anext__()
        await asyncio.get_running_loop().run_in_executor(None, engine.close, 0.1)
        return await asyncio.gather(read(ticket), return_exceptions=True)

    (result,) = within(30, end)
    assert isinstance(result, (ClosingError, str))
