"""Another picture is chosen while something about the first is on its way: what is late never counts for the next."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route

from hired_runtime.serving.page_files import PAGE, SAMPLES
from tests.tiny.served import Served, data_uri, encoded, served, until

pytestmark = pytest.mark.browser

Visits = Callable[..., Any]

GOLDEN = Path(__file__).parents[1] / "golden/bundle"
LISTED = json.loads((PAGE / SAMPLES).read_text())
FIRST, SECOND = ((PAGE / "samples" / each["file"]).read_bytes() for each in LISTED[:2])
CHAT = "v1/chat/completions"
PICTURES, SELECTIONS = "**/api/pictures", "**/api/selections"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as each:
        yield each


@contextmanager
def held(page: Page, pattern: str) -> Iterator[list[Route]]:
    """Requests that wait until the block ends; later ones pass."""
    waiting: list[Route] = []
    passing = False
    page.route(pattern, lambda route: route.continue_() if passing else waiting.append(route))
    yield waiting
    passing = True
    for route in waiting:
        route.continue_()


def wait_for(page: Page, condition: Callable[[], bool]) -> None:
    """As `until`, while the page's own events go on."""
    for _ in range(1000):
        if condition():
            return
        page.wait_for_timeout(10)
    raise AssertionError("it never happened")


def choose(page: Page, number: int) -> None:
    page.click(f"#samples li:nth-child({number}) button")


def offered(page: Page) -> list[str]:
    return page.locator("#suggestions button").all_inner_texts()


def questions(number: int) -> list[str]:
    return [each["prompt"] for each in LISTED[number - 1]["questions"]]


def watch(page: Page, selector: str) -> Callable[[], list[str]]:
    """Every text that an element has had since."""
    page.evaluate(
        """selector => {
            const target = document.querySelector(selector);
            window.seen = [];
            new MutationObserver(() => seen.push(target.textContent))
                .observe(target, { childList: true, subtree: true, characterData: true });
        }""",
        selector,
    )
    return lambda: page.evaluate("seen")


def sent_pictures(each: Any) -> list[str]:
    return [json.loads(body)["messages"][0]["content"][0]["image_url"]["url"] for body in each.bodies[CHAT]]


def test_a_picture_that_is_read_too_late_is_not_sent_as_the_next(server: Served, visit: Visits) -> None:
    with visit(server) as each:
        page = each.page
        each.take_sample(1)
        page.evaluate(
            """() => {
                const read = FileReader.prototype.readAsDataURL;
                FileReader.prototype.readAsDataURL = function (file) {
                    FileReader.prototype.readAsDataURL = read;
                    window.late = () => read.call(this, file);
                };
            }"""
        )
        page.fill("#question", "How many cards are there?")
        page.press("#question", "Enter")
        page.wait_for_function("() => window.late")
        choose(page, 2)
        wait_for(page, lambda: offered(page) == questions(2))
        page.evaluate("late()")
        for _ in range(2):
            each.ask("How many cards are there?")
        assert sent_pictures(each) == [data_uri(SECOND)] * 2  # and nothing of the first


def test_the_picture_that_was_chosen_last_is_shown(server: Served, visit: Visits) -> None:
    with visit(server) as each:
        page = each.page
        page.wait_for_selector("#samples button")
        seen = watch(page, "#suggestions")
        with held(page, "**/scene-1.jpg") as waiting:
            choose(page, 1)
            wait_for(page, lambda: len(waiting) == 1)
            choose(page, 3)
            choose(page, 2)
            page.wait_for_timeout(100)
        page.wait_for_selector("#counts:not([hidden])")
        assert offered(page) == questions(2)
        assert set(seen()) == {"".join(questions(2))}
        each.ask("How many cards are there?")
        assert sent_pictures(each) == [data_uri(SECOND)]


def test_a_selection_that_comes_late_is_not_shown_on_another_picture(server: Served, visit: Visits) -> None:
    with visit(server) as each:
        page = each.page
        each.take_sample(1)
        before = page.inner_text("#partitions")
        with held(page, SELECTIONS) as waiting:
            page.press("#budget", "ArrowRight")
            wait_for(page, lambda: len(waiting) == 1)
            choose(page, 4)
            wait_for(page, lambda: offered(page) == questions(4))
            assert page.is_hidden("#counts")
            seen = watch(page, "#partitions")
        page.wait_for_selector("#counts:not([hidden])")
        assert len(set(seen())) == 1
        assert page.inner_text("#partitions") != before


def test_a_forgotten_picture_is_not_sent_again_once_another_is_shown(server: Served, visit: Visits) -> None:
    with visit(server, complaining="404") as each:
        page, uploads = each.page, []
        each.take_sample(1)
        page.route(PICTURES, lambda route: (uploads.append(route.request.post_data_buffer), route.continue_()))
        with held(page, SELECTIONS) as waiting:
            page.press("#budget", "ArrowRight")
            wait_for(page, lambda: len(waiting) == 1)
            choose(page, 2)
            wait_for(page, lambda: offered(page) == questions(2))
            for number in range(9):
                picture = encoded("PNG", size=(51 + number, 40))
                assert server.post(picture, {"Content-Type": "image/png"}, "/api/pictures").status == 200
            # the second picture is forgotten as well, and sent again
        page.wait_for_selector("#counts:not([hidden])")
        assert uploads == [SECOND, SECOND]
        assert page.is_hidden("#selection-error")


def test_an_answer_about_a_picture_ends_with_it(visit: Visits) -> None:
    with served(GOLDEN, step_s=0.05) as talkative, visit(talkative) as each:
        page = each.page
        each.take_sample(1)
        page.fill("#question", "Well?")
        page.press("#question", "Enter")
        until(lambda: len("".join(each.answers)) > 3)
        choose(page, 2)
        wait_for(page, lambda: offered(page) == questions(2))
        assert each.answers == []
        assert page.is_visible("#send")
        page.fill("#question", "And?")
        page.press("#question", "Enter")  # at once, whatever becomes of the other
        assert page.inner_text(".turn h3") == "And?"
        until(lambda: talkative.engine.running == 1)
        each.answered()
        assert len(each.answers) == 1
        assert sent_pictures(each) == [data_uri(FIRST), data_uri(SECOND)]


def test_a_question_waits_for_the_picture_that_was_chosen(server: Served, visit: Visits) -> None:
    with visit(server) as each:
        page = each.page
        each.take_sample(1)
        with held(page, PICTURES) as waiting:
            choose(page, 2)
            wait_for(page, lambda: len(waiting) == 1)
            page.fill("#question", "How many cards are there?")
            page.press("#question", "Enter")
            page.press("#question", "Enter")
            page.wait_for_timeout(100)
            assert page.input_value("#question") == "How many cards are there?"
        each.answered()
        assert len(each.answers) == 1
        assert sent_pictures(each) == [data_uri(SECOND)]


def test_a_question_is_kept_where_the_picture_that_was_chosen_is_none(server: Served, visit: Visits) -> None:
    with visit(server, complaining="400") as each:
        page = each.page
        each.take_sample(1)
        with held(page, PICTURES) as waiting:
            file: Any = {"name": "a.png", "mimeType": "image/png", "buffer": b"no picture at all"}
            page.set_input_files("#file", file)
            wait_for(page, lambda: len(waiting) == 1)
            page.fill("#question", "How many cards are there?")
            page.press("#question", "Enter")
        page.wait_for_selector("#stage-error:not([hidden])")
        page.wait_for_timeout(100)
        assert page.input_value("#question") == "How many cards are there?"
        assert each.answers == []
        page.press("#question", "Enter")  # about the picture that is still shown
        each.answered()
        assert sent_pictures(each) == [data_uri(FIRST)]
