"""What goes wrong is said in words, where it happened, and the page goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hired_runtime.serving.media import MediaLimits
from tests.tiny.served import Served, encoded, served, until

pytestmark = pytest.mark.browser

Visits = Callable[..., Any]


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as each:
        yield each


def put(each: Any, data: bytes, kind: str = "image/png", name: str = "a.png") -> None:
    file: Any = {"name": name, "mimeType": kind, "buffer": data}
    each.page.set_input_files("#file", file)


def test_a_key_is_asked_for_kept_and_used(visit: Visits) -> None:
    with served(api_key="secret") as locked, visit(locked, complaining="401") as each:
        page = each.page
        page.wait_for_selector("#key-form:not([hidden])")
        assert page.evaluate("() => document.activeElement.id") == "key"
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        until(lambda: "not this server's" in page.inner_text("#key-note"))
        page.keyboard.type("secret")
        page.keyboard.press("Enter")
        page.wait_for_selector("#samples button")
        assert page.is_hidden("#key-form")
        each.take_sample()
        each.ask("How many cards are there?")
        assert each.answers == ["6"]
        page.reload()  # the tab is still open
        page.wait_for_selector("#samples button")
        assert page.is_hidden("#key-form")
        assert "secret" not in page.content()


def test_a_key_that_cannot_be_sent_is_refused_in_words_and_never_kept(visit: Visits) -> None:
    with served(api_key="secret") as locked, visit(locked, complaining="401") as each:
        page = each.page
        page.wait_for_selector("#key-form:not([hidden])")
        for key in ("cl\N{LATIN SMALL LETTER E WITH ACUTE}", "\N{EURO SIGN}5", "a\tb"):
            page.fill("#key", key)
            page.press("#key", "Enter")
            assert "no accents" in page.inner_text("#key-note")
            assert page.get_attribute("#key", "aria-invalid") == "true"
            assert page.is_visible("#key-form")
            assert page.evaluate("() => sessionStorage.length") == 0
        page.evaluate("() => sessionStorage.setItem('hired-edge-key', 'cl\\u20ac')")  # as an earlier page kept it
        page.reload()
        page.wait_for_selector("#key-form:not([hidden])")
        assert page.is_hidden("#trouble")
        assert page.evaluate("() => sessionStorage.length") == 0
        page.fill("#key", "secret")
        page.press("#key", "Enter")
        page.wait_for_selector("#samples button")
        each.take_sample()


def test_a_sample_that_cannot_be_read_is_said_on_the_stage(server: Served, visit: Visits) -> None:
    with visit(server, complaining="net::ERR") as each:
        each.page.wait_for_selector("#samples button")
        each.page.route("**/scene-1.jpg", lambda route: route.abort("connectionrefused"))
        each.page.click("#samples li:nth-child(1) button")
        each.page.wait_for_selector("#stage-error:not([hidden])")
        assert each.page.inner_text("#stage-error") == "The server does not answer. Is it still running?"
        each.take_sample(2)
        assert each.page.is_hidden("#stage-error")


def test_too_long_a_conversation_can_be_begun_anew(server: Served, visit: Visits) -> None:
    """The demonstration model has room for 64 text tokens."""
    with visit(server, complaining="400") as each:
        each.take_sample()
        while not each.page.locator(".turn .error").count():
            each.ask("How many cards are there?")
            assert len(each.bodies["v1/chat/completions"]) < 12
        assert "at most 64" in each.page.inner_text(".turn .error")
        each.page.click("text=Ask it in a new conversation")
        until(lambda: each.answers[-1] == "6")
        each.answered()
        assert not each.page.locator(".turn .error").count()
        assert len(json.loads(each.bodies["v1/chat/completions"][-1])["messages"]) == 1


@pytest.mark.parametrize("data", [b"no picture at all", b""], ids=["text", "empty"])
def test_what_is_no_picture_is_said_on_the_stage(server: Served, visit: Visits, data: bytes) -> None:
    with visit(server, complaining="400") as each:
        each.page.wait_for_selector("#samples button")
        put(each, data)
        each.page.wait_for_selector("#stage-error:not([hidden])")
        assert "expected" in each.page.inner_text("#stage-error")
        each.take_sample()
        assert each.page.is_hidden("#stage-error")


def test_a_picture_over_a_limit_is_not_even_sent(visit: Visits) -> None:
    with served(media=MediaLimits(max_picture_bytes=25_000)) as small, visit(small) as each:
        each.page.wait_for_selector("#samples button")
        put(each, encoded("BMP", size=(100, 100)))
        each.page.wait_for_selector("#stage-error:not([hidden])")
        assert each.page.inner_text("#stage-error") == "A picture of 29.3 KiB; this server takes up to 24.4 KiB."
        each.take_sample()


def test_a_policy_that_cannot_keep_to_a_budget_says_so_beside_it(server: Served, visit: Visits) -> None:
    with visit(server, complaining="400") as each:
        each.take_sample()
        each.page.evaluate(
            "() => (document.getElementById('policy').add(new Option('prumerge')), "
            "document.getElementById('policy').value = 'prumerge')"
        )
        each.page.dispatch_event("#policy", "change")
        each.page.wait_for_selector("#selection-error:not([hidden])")
        assert "prumerge" in each.page.inner_text("#selection-error")
        assert each.page.is_hidden("#counts")
        each.page.select_option("#policy", "hired")
        each.page.wait_for_selector("#counts:not([hidden])")
        assert each.page.is_hidden("#selection-error")


def test_a_server_that_is_gone_is_named_and_can_come_back(visit: Visits) -> None:
    gone = "The server does not answer. Is it still running?"
    with served() as server, visit(server, complaining="net::ERR") as each:
        each.take_sample()
        each.page.route("**/*", lambda route: route.abort("connectionrefused"))
        each.ask("How many cards are there?")
        assert each.page.inner_text(".turn .error") == gone
        each.page.press("#budget", "ArrowRight")
        until(lambda: each.page.inner_text("#selection-error") == gone)
        each.page.unroute("**/*")
        each.page.click("text=Try again")
        until(lambda: each.answers[-1:] == ["6"])
        each.answered()
        assert each.page.locator(".error:visible").count() == 1  # the selection's own, until it is made
        each.page.press("#budget", "ArrowRight")
        until(lambda: each.page.is_hidden("#selection-error"))


def test_an_answer_that_breaks_off_keeps_what_came(visit: Visits) -> None:
    """A stream that ends too soon, played back: the picture and everything else is the real server's."""
    chunk = json.dumps({"choices": [{"index": 0, "delta": {"content": " six car"}}]})
    with served() as server, visit(server) as each:
        each.take_sample()
        each.page.route(
            "**/v1/chat/completions",
            lambda route: route.fulfill(content_type="text/event-stream", body=f"data: {chunk}\n\n"),
        )
        each.ask("How many cards are there?")
        assert each.answers == ["six car"]
        assert each.page.inner_text(".turn .error").startswith("The answer broke off")


def test_a_server_that_never_answered_is_said_at_the_top(server: Served, visit: Visits) -> None:
    with visit(server, complaining="net::ERR") as each:
        each.page.route("**/api/settings", lambda route: route.abort("connectionrefused"))
        each.page.reload()
        each.page.wait_for_selector("#trouble:not([hidden])")
        assert each.page.inner_text("#model") == "not connected"
