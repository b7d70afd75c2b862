"""The page in a browser: a picture is looked at, asked about, and looked at again at another budget."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import hired_runtime
from hired_runtime.model import Model
from hired_runtime.pipeline import Request
from hired_runtime.serving.page_files import PAGE, SAMPLES
from tests.tiny.served import BUNDLE, Served, encoded, served, until

pytestmark = pytest.mark.browser

Visits = Callable[..., Any]

GOLDEN = Path(__file__).parents[1] / "golden/bundle"
LISTED = json.loads((PAGE / SAMPLES).read_text())
PICTURE = (PAGE / "samples" / LISTED[0]["file"]).read_bytes()
QUESTION, ANSWER = LISTED[0]["questions"][0].values()
CHAT = "v1/chat/completions"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as each:
        yield each


@pytest.fixture(scope="module")
def talkative() -> Iterator[Served]:
    """Random weights: long answers that mean nothing, a token every 50 ms."""
    with served(GOLDEN, step_s=0.05) as each:
        yield each


@pytest.fixture(scope="module")
def model() -> Model:
    return hired_runtime.open(BUNDLE, threads=1)


def kept(model: Model, budget: str, policy: str = "hired") -> list[list[int]]:
    """Of the first sample's partitions."""
    (selection,) = model.pipeline.look(Request((), [PICTURE], budget, policy=policy))
    return [indices.tolist() for indices in selection.indices]


def slide(page: Any, percent: int) -> None:
    """As a drag does: an event at every step."""
    page.evaluate(
        """percent => {
            const slider = document.getElementById("budget");
            const step = percent - 1 > slider.value ? 1 : -1;
            while (Number(slider.value) !== percent - 1) {
                slider.value = Number(slider.value) + step;
                slider.dispatchEvent(new Event("input", { bubbles: true }));
            }
        }""",
        percent,
    )


def test_a_question_about_a_picture_is_answered_with_its_figures(server: Served, visit: Visits) -> None:
    with visit(server) as each:
        each.take_sample()
        each.ask(QUESTION)
        assert each.answers == [ANSWER]
        note = each.page.inner_text(".answer + .note")
        assert note.startswith("20 % hired, 64 visual tokens, first token in ")
        figures = dict(
            zip(*(each.page.locator(f"#figures {tag}").all_inner_texts() for tag in ("dt", "dd")), strict=True)
        )
        assert set(figures) == {"First token", "Speed", "Prompt", "Cache"}
        assert figures["First token"].endswith(" ms")
        assert figures["Speed"].endswith(" tokens/s")
        assert figures["Cache"] == f"{server.engine.model.cache_bytes / 2**20:.3g} MiB"
        (body,) = map(json.loads, each.bodies[CHAT])
        assert (body["visual_tokens"], body["policy"], body["stream"]) == ("20%", "hired", True)


def test_an_answer_comes_in_pieces(talkative: Served, visit: Visits) -> None:
    with visit(talkative) as each:
        each.page.evaluate(
            """() => {
                window.seen = [];
                const note = () => seen.push(document.querySelector(".answer")?.textContent ?? "");
                new MutationObserver(note).observe(document.getElementById("log"), { childList: true, subtree: true });
            }"""
        )
        each.take_sample()
        each.ask("Well?")
        seen = list(dict.fromkeys(each.page.evaluate("seen")))
        assert len(seen) > 10
        assert all(after.startswith(before) for before, after in pairwise(seen))


def test_the_overlay_shows_what_is_kept(server: Served, model: Model, visit: Visits) -> None:
    """A patch's centre is the picture's where it is kept, and dark where it is not."""
    with visit(server) as each:
        each.take_sample()
        slide(each.page, 100)
        until(lambda: each.counts[0] == 64)
        clear = each.pixels()
        for percent in (40, 20, 5):
            slide(each.page, percent)
            right = kept(model, f"{percent}%")
            until(lambda right=right: each.counts == [len(indices) for indices in right])
            assert [patch for patch in range(64) if each.pixels()[patch] == clear[patch]] == right[0]
            assert each.page.inner_text("#panels figure:nth-child(1) .count") == f"{len(right[0])}/64"
            assert f"{percent} %" in each.page.inner_text("#budget-words")


def test_a_drag_asks_no_faster_than_it_is_answered_and_ends_at_the_latest(
    server: Served, model: Model, visit: Visits
) -> None:
    with visit(server) as each:
        each.take_sample()
        slide(each.page, 90)
        slide(each.page, 7)
        until(lambda: each.counts == [len(indices) for indices in kept(model, "7%")])
        asked = [json.loads(body)["visual_tokens"] for body in each.bodies["api/selections"]]
        assert asked[-1] == "7%"
        assert len(asked) < 100


@pytest.mark.parametrize("policy", ["uniform", "top-cls", "divprune", "hired-merging"])
def test_another_policy_keeps_others(server: Served, model: Model, visit: Visits, policy: str) -> None:
    with visit(server) as each:
        each.take_sample()
        before = each.pixels(1)
        each.page.select_option("#policy", policy)
        until(lambda: each.counts == [len(indices) for indices in kept(model, "20%", policy)])
        until(lambda: each.pixels(1) != before or policy == "hired-merging")
        assert each.page.inner_text("#policy-words")
        each.ask(QUESTION)
        assert json.loads(each.bodies[CHAT][-1])["policy"] == policy


def test_a_policy_without_a_budget_asks_for_none(server: Served, visit: Visits) -> None:
    with visit(server) as each:
        each.take_sample()
        each.page.select_option("#policy", "full")
        until(lambda: each.counts[0] == 64)
        assert each.page.is_disabled("#budget")
        each.ask(QUESTION)
        assert each.answers == [ANSWER]
        assert "visual_tokens" not in json.loads(each.bodies[CHAT][-1])


def test_heat_maps_colour_the_panels(server: Served, visit: Visits) -> None:
    with visit(server) as each:
        each.take_sample()
        shown = {}
        for name in ("none", "allocation", "selection"):
            each.page.check(f"input[value={name}]")
            shown[name] = each.pixels()
            assert each.page.is_hidden("#scale") == (name == "none")
        assert len({tuple(pixels) for pixels in shown.values()}) == 3
        assert "selection" in (each.page.get_attribute("#panels canvas", "aria-label") or "")


def test_a_follow_up_sends_what_was_said(server: Served, visit: Visits) -> None:
    with visit(server) as each:
        each.take_sample()
        each.ask(QUESTION)
        each.ask("How many cards are there?")
        assert len(each.answers) == 2
        messages = json.loads(each.bodies[CHAT][-1])["messages"]
        assert [message["role"] for message in messages] == ["user", "assistant", "user"]
        assert messages[0]["content"][0]["image_url"]["url"].startswith("data:image/jpeg;base64,")
        assert messages[1:] == [
            {"role": "assistant", "content": ANSWER},
            {"role": "user", "content": "How many cards are there?"},
        ]
        cached = each.page.locator("#figures dd").nth(2).inner_text()
        assert cached.endswith(" cached")
        assert int(cached.split()[1]) > 64  # the picture's tokens, at least
        each.page.click("#clear")
        assert each.answers == []
        each.ask(QUESTION)
        assert len(json.loads(each.bodies[CHAT][-1])["messages"]) == 1


def test_a_question_is_asked_again_at_another_budget(server: Served, visit: Visits) -> None:
    with visit(server) as each:
        each.take_sample()
        each.ask(QUESTION)
        slide(each.page, 100)
        each.page.click(".again")
        until(lambda: len(each.answers) == 2)
        each.answered()
        assert each.answers == [ANSWER, ANSWER]
        notes = each.page.locator(".answer + .note").all_inner_texts()
        assert [note.split(",")[0] for note in notes] == ["20 % hired", "100 % hired"]
        assert len(json.loads(each.bodies[CHAT][-1])["messages"]) == 1


def test_a_samples_questions_are_one_click(server: Served, visit: Visits) -> None:
    with visit(server) as each:
        each.take_sample(2)
        questions = LISTED[1]["questions"]
        assert each.page.locator("#suggestions button").all_inner_texts() == [each["prompt"] for each in questions]
        each.page.click("#suggestions li:nth-child(1) button")
        each.answered()
        assert each.answers == [questions[0]["answer"]]
        each.page.click("#suggestions li:nth-child(3) button")  # begins anew, and leaves the other to be compared
        until(lambda: len(each.answers) == 2)
        each.answered()
        assert each.answers == [questions[0]["answer"], questions[2]["answer"]]
        assert [len(json.loads(body)["messages"]) for body in each.bodies[CHAT]] == [1, 1]
        each.ask("Is there a blue card?")
        assert len(json.loads(each.bodies[CHAT][-1])["messages"]) == 3


def test_another_picture_is_another_conversation(server: Served, visit: Visits) -> None:
    with visit(server) as each:
        each.take_sample()
        each.ask(QUESTION)
        each.page.click("#samples li:nth-child(4) button")
        until(lambda: each.answers == [])
        assert each.page.is_visible("#log-words")
        assert each.page.inner_text("#figures") == ""


def test_stop_frees_the_model(talkative: Served, visit: Visits) -> None:
    with visit(talkative) as each:
        each.take_sample()
        for stop in (lambda: each.page.keyboard.press("Escape"), lambda: each.page.click("#stop")):
            each.page.fill("#question", "Well?")
            each.page.press("#question", "Enter")
            until(lambda: len("".join(each.answers)) > 3)
            assert talkative.engine.running == 1
            stop()
            each.answered()
            until(lambda: talkative.engine.running == 0)
            assert each.page.locator(".turn:last-child .note").first.inner_text().endswith(", stopped")
            each.page.click("#clear")


def test_a_picture_that_the_server_has_forgotten_is_sent_again(server: Served, model: Model, visit: Visits) -> None:
    with visit(server, complaining="404") as each:
        each.take_sample()
        for number in range(9):
            picture = encoded("PNG", size=(31 + number, 40))
            assert server.post(picture, {"Content-Type": "image/png"}, "/api/pictures").status == 200
        slide(each.page, 10)
        until(lambda: each.counts == [len(indices) for indices in kept(model, "10%")])
        assert each.page.is_hidden("#selection-error")


@pytest.mark.parametrize("how", ["file", "drop", "paste"])
def test_a_picture_comes_from_a_file_a_drop_or_the_clipboard(server: Served, visit: Visits, how: str) -> None:
    with visit(server) as each:
        if how == "file":
            file: Any = {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": PICTURE}
            each.page.set_input_files("#file", file)
        else:
            each.page.evaluate(
                """([how, bytes]) => {
                    const data = new DataTransfer();
                    data.items.add(new File([new Uint8Array(bytes)], "a.jpg", { type: "image/jpeg" }));
                    const of = { bubbles: true, cancelable: true };
                    document.body.dispatchEvent(how === "drop"
                        ? new DragEvent("drop", { ...of, dataTransfer: data })
                        : new ClipboardEvent("paste", { ...of, clipboardData: data }));
                }""",
                [how, list(PICTURE)],
            )
        each.page.wait_for_selector("#counts:not([hidden])")
        each.ask(QUESTION)
        assert each.answers == [ANSWER]


def test_text_is_pasted_as_text(server: Served, visit: Visits) -> None:
    with visit(server) as each:
        each.page.focus("#question")
        each.page.evaluate("document.execCommand('insertText', false, 'What is <b>this</b>?')")
        assert each.page.input_value("#question") == "What is <b>this</b>?"
        each.page.press("#question", "Enter")
        each.answered()
        assert each.page.inner_text(".turn h3") == "What is <b>this</b>?"
