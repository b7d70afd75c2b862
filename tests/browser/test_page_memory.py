"""Whether a question goes on from those before it: a choice that the tab keeps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hired_runtime.serving.page_files import PAGE, SAMPLES
from tests.browser.conftest import PHONE
from tests.tiny.served import Served, served, until

pytestmark = pytest.mark.browser

Visits = Callable[..., Any]

LISTED = json.loads((PAGE / SAMPLES).read_text())
CHAT = "v1/chat/completions"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as each:
        yield each


def test_questions_by_themselves_are_answered_as_well_as_a_first_one(server: Served, visit: Visits) -> None:
    """The demonstration model was trained on single questions: every sample's questions, typed one after another."""
    with visit(server) as each:
        each.page.uncheck("text=Remember earlier questions")
        for number, sample in enumerate(LISTED, 1):
            each.take_sample(number)
            first = sample["questions"][0]["prompt"]
            until(lambda first=first: each.page.locator("#suggestions button").first.inner_text() == first)
            for question in sample["questions"]:
                each.ask(question["prompt"])
            assert each.answers == [question["answer"] for question in sample["questions"]]
            cached = int(each.page.locator("#figures dd").nth(2).inner_text().split()[1])
            visual = int(each.page.locator(".answer + .note").last.inner_text().split(", ")[1].split()[0])
            assert cached >= visual  # the picture is still in the cache
        assert {len(json.loads(body)["messages"]) for body in each.bodies[CHAT]} == {1}
        assert not each.page.locator(".turn.follows").count()


def test_the_choice_is_kept_and_can_be_taken_back(server: Served, visit: Visits) -> None:
    with visit(server, viewport=PHONE) as each:
        page = each.page
        assert page.is_checked("#remember")
        page.uncheck("#remember")
        page.reload()
        page.wait_for_selector("#samples button")
        assert not page.is_checked("#remember")
        each.take_sample(2)
        for _ in range(2):
            each.ask("How many cards are there?")
        page.check("#remember")
        each.ask("Is there a red card?")
        assert [len(json.loads(body)["messages"]) for body in each.bodies[CHAT]] == [1, 1, 3]
        page.reload()
        page.wait_for_selector("#samples button")
        assert page.is_checked("#remember")


def test_a_question_that_went_on_can_be_asked_again_by_itself(server: Served, visit: Visits) -> None:
    with visit(server) as each:
        each.take_sample()
        for question in LISTED[0]["questions"][:2]:
            each.ask(question["prompt"])
        assert each.page.locator(".turn.follows").count() == 1
        each.page.uncheck("#remember")
        each.page.click(".again")
        until(lambda: len(each.answers) == 3)
        each.answered()
        assert each.answers[-1] == LISTED[0]["questions"][1]["answer"]
        assert [len(json.loads(body)["messages"]) for body in each.bodies[CHAT]] == [1, 3, 1]
        assert not each.page.locator(".turn.follows").count()
