"""The page for everybody: by keyboard alone, read aloud, in light and dark, on a phone; axe finds nothing wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.browser.conftest import PHONE, WIDE
from tests.tiny.served import Served, served, until

pytestmark = pytest.mark.browser

Visits = Callable[..., Any]

LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": WIDE},
    "dark": {"viewport": WIDE, "color_scheme": "dark"},
    "phone": {"viewport": PHONE, "has_touch": True},
    "dark phone": {"viewport": PHONE, "color_scheme": "dark"},
}


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as each:
        yield each


@pytest.fixture(scope="module")
def locked() -> Iterator[Served]:
    with served(api_key="secret") as each:
        yield each


def violations(page: Page) -> list[str]:
    """What axe finds, a line for each element."""
    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {node['html'][:200]} {node['failureSummary']}" for each in found for node in each["nodes"]]


def overflows(page: Page) -> bool:
    return page.evaluate("() => document.documentElement.scrollWidth > document.documentElement.clientWidth")


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing_and_nothing_overflows(server: Served, visit: Visits, look: str) -> None:
    with visit(server, complaining="400", **LOOKS[look]) as each:
        each.page.wait_for_selector("#samples button")
        assert violations(each.page) == []
        assert not overflows(each.page)
        for number in (1, 5):  # square, and three times as high as wide
            each.take_sample(number)
            each.page.check("input[value=selection]")
            each.ask("How many cards are there?")
            each.ask("How many? " * 30)  # more than fits: an error, in its place
            assert each.page.is_visible(".turn .error")
            assert violations(each.page) == []
            assert not overflows(each.page)


@pytest.mark.parametrize("width", [320, 360, 600, 800, 1000, 1200, 1920])
def test_no_width_overflows(server: Served, visit: Visits, width: int) -> None:
    with visit(server, viewport={"width": width, "height": 700}) as each:
        each.take_sample(4)
        each.ask("How many cards are there?")
        assert not overflows(each.page)
        right = each.page.evaluate(
            "() => Math.max(...[...document.querySelectorAll('body *:not(.unseen)')]"
            ".map((each) => each.getBoundingClientRect().right))"
        )
        assert right <= width + 0.5


def test_axe_finds_nothing_in_the_key_form(locked: Served, visit: Visits) -> None:
    with visit(locked, complaining="401") as each:
        each.page.wait_for_selector("#key-form:not([hidden])")
        assert violations(each.page) == []


def test_the_schemes_differ_and_the_sheet_is_dark_in_both(server: Served, visit: Visits) -> None:
    grounds, sheets = [], []
    for scheme in ("light", "dark"):
        with visit(server, color_scheme=scheme) as each:
            for selector, found in (("html", grounds), (".stage", sheets)):
                rule = "each => getComputedStyle(each).backgroundColor.match(/\\d+/g).map(Number)"
                found.append(sum(each.page.eval_on_selector(selector, rule)))
    assert grounds[0] > 3 * 200 > 3 * 60 > grounds[1]
    assert max(sheets) < 3 * 40


@pytest.mark.parametrize(("motion", "name"), [("reduce", "none"), ("no-preference", "wait")])
def test_nothing_blinks_for_those_who_want_it_so(server: Served, visit: Visits, motion: str, name: str) -> None:
    with visit(server, reduced_motion=motion) as each:
        each.page.evaluate(
            "() => document.getElementById('log').append("
            "Object.assign(document.createElement('p'), { className: 'answer running' }))"
        )
        rule = "each => getComputedStyle(each, '::after').animationName"
        assert each.page.eval_on_selector(".answer.running", rule) == name


def test_everything_is_reached_by_keyboard_and_seen_to_be(server: Served, visit: Visits) -> None:
    """From the top to the end by Tab alone: every control once, each with an outline."""
    with visit(server) as each:
        each.take_sample()
        each.ask("How many cards are there?")
        each.page.evaluate("() => (document.body.tabIndex = -1, document.body.focus())")
        reached = []
        for _ in range(60):
            each.page.keyboard.press("Tab")
            name, outlined = each.page.evaluate(
                """() => {
                    const at = document.activeElement;
                    const shown = at.matches("#file, .choice input") ? at.nextElementSibling : at;
                    return [at.id || at.value || at.textContent.trim() || at.firstChild?.alt,
                            getComputedStyle(shown).outlineStyle !== "none"];
                }"""
            )
            if name in reached or each.page.evaluate("() => document.activeElement === document.body"):
                break
            assert outlined, name
            reached.append(name)
        expected = {"file", "budget", "policy", "none", "clear", "log", "question", "remember", "send"}
        assert expected <= set(reached)
        assert sum("Sample" in name for name in reached) == 5
        assert sum("?" in name for name in reached) >= 4  # suggested questions
        assert any(name.startswith("Ask again") for name in reached)


def test_a_visit_by_keyboard_alone(server: Served, visit: Visits) -> None:
    with visit(server) as each:
        page = each.page
        page.wait_for_selector("#samples button")

        def tab_to(selector: str) -> None:
            for _ in range(40):
                page.keyboard.press("Tab")
                if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                    return
            raise AssertionError(f"Tab never comes to {selector}")

        tab_to("#samples button")
        page.keyboard.press("Enter")
        page.wait_for_selector("#counts:not([hidden])")
        assert page.evaluate("() => document.activeElement.matches('#samples button')")  # where it was
        tab_to("#budget")
        before = each.counts
        for _ in range(5):
            page.keyboard.press("ArrowRight")
        assert page.get_attribute("#budget", "aria-valuetext") == "25 percent, 80 tokens"
        until(lambda: sum(each.counts) > sum(before))
        tab_to("#policy")
        page.keyboard.press("ArrowDown")
        assert page.input_value("#policy") == "hired-placed"
        tab_to("input[name=map]")
        page.keyboard.press("ArrowRight")
        assert page.is_checked("input[value=allocation]")
        tab_to("#question")
        page.keyboard.type("How many cards")
        page.keyboard.press("Shift+Enter")
        page.keyboard.type("are there?")
        assert page.input_value("#question") == "How many cards\nare there?"
        page.keyboard.press("Enter")
        each.answered()
        assert page.evaluate("() => document.activeElement.id") == "question"  # ready for the next
        assert page.inner_text(".turn h3") == "How many cards\nare there?"


def test_the_skip_link_leads_to_the_question(server: Served, visit: Visits) -> None:
    with visit(server) as each:
        each.page.keyboard.press("Tab")
        each.page.keyboard.press("Enter")
        assert each.page.evaluate("() => document.activeElement.id") == "question"


def test_what_changes_is_said(server: Served, visit: Visits) -> None:
    """The answer's log is a live region, busy while it grows; a selection is said once it rests."""
    with visit(server) as each:
        log = each.page.locator("#log")
        assert (log.get_attribute("role"), log.get_attribute("aria-live")) == ("log", "polite")
        each.take_sample()
        until(lambda: each.page.inner_text("#said") == "Kept 54 of 288 patches, 64 of 64 positions")
        each.ask("How many cards are there?")
        assert log.get_attribute("aria-busy") == "false"
        labels = [canvas.get_attribute("aria-label") for canvas in each.page.locator("#panels canvas").all()]
        assert labels == [
            "The whole picture: 27 of 64 patches kept",
            "The picture in 2x2 tiles: 27 of 224 patches kept",
        ]
