"""`hired-edge chat` in a pipe: answers alone on stdout, errors that cost a line, and what a conversation keeps."""

from __future__ import annotations

import io
import os
import signal
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import hired_runtime
from demo.scenes.compose import compose
from demo.scenes.draw import encode
from hired_edge import cli
from hired_edge.errors import InputError, LimitError
from hired_runtime.chatting import inline
from hired_runtime.chatting.conversation import Conversation, read
from hired_runtime.chatting.plain import one_line, plain
from hired_runtime.chatting.terminal import Stop, Terminal
from hired_runtime.sampling import SamplingOptions
from tests.tiny.commands import Capture, finish, refused, slow_steps, start

ROOT = Path(__file__).parents[2]
BUNDLE, DEMO = ROOT / "tests/golden/bundle", ROOT / "demo/bundle"
OPTIONS: dict[str, Any] = {"partitions": "all", "sampling": SamplingOptions()}
QUESTIONS = ("How many cards are there?", "What colour is the card in the top left?", "How many cards are there?")


@pytest.fixture(scope="module")
def demo() -> hired_runtime.Model:
    return hired_runtime.open(DEMO, threads=1)


@pytest.fixture(scope="module")
def golden() -> hired_runtime.Model:
    return hired_runtime.open(BUNDLE, visual_tokens="40%", threads=1)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    paths = [tmp_path_factory.mktemp("scenes") / f"{number}.jpg" for number in range(2)]
    for number, path in enumerate(paths):
        path.write_bytes(encode(compose(2024, number)))
    return paths


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in every run, since what the golden model says to it is long."""
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (97, 130, 3), np.uint8)).save(path)
    return path


def piped(capsys: Capture, monkeypatch: pytest.MonkeyPatch, lines: str | bytes, *argv: object) -> tuple[int, str, str]:
    """Status, stdout and stderr of `hired-edge chat` with these lines as its stdin, in this process."""
    data = lines if isinstance(lines, bytes) else lines.encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
    capsys.readouterr()
    status = cli.main(["chat", *map(str, argv), "--threads", "1"])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_a_pipe_gets_the_answers_alone(
    scenes: list[Path], demo: hired_runtime.Model, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = demo.session([scenes[0]])
    expected = [session.ask(prompt).text for prompt in QUESTIONS[:2]]
    result = piped(capsys, monkeypatch, "\n".join(QUESTIONS[:2]), DEMO, "--image", scenes[0])
    assert result == (0, "".join(f"{text}\n" for text in expected), "")


def test_without_history_every_question_is_asked_by_itself(
    scenes: list[Path], demo: hired_runtime.Model, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [demo.ask(prompt, [scenes[0]]).text for prompt in QUESTIONS]
    lines = "".join(f"{prompt}\n" for prompt in QUESTIONS)
    status, out, err = piped(
        capsys, monkeypatch, f"{lines}/stats\n/history\n", DEMO, "--image", scenes[0], "--no-history"
    )
    assert (status, out) == (0, "".join(f"{text}\n" for text in expected))
    positions = demo.ask(QUESTIONS[-1], [scenes[0]])
    whole = positions.prompt_tokens + positions.selections[0].visual_tokens
    (line,) = [line for line in err.splitlines() if line.startswith("prompt")]
    cached = int(line.split()[-4])
    assert line.split()[1] == str(whole)
    assert positions.selections[0].visual_tokens < cached < whole
    assert [line for line in err.splitlines() if line.startswith("> ")] == [f"> {prompt}" for prompt in QUESTIONS]


def test_an_error_costs_a_line(
    scenes: list[Path], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = scenes[0].read_bytes()
    (tmp_path / "torn.jpg").write_bytes(whole[: len(whole) // 2])
    lines = [
        b"/image /nowhere\x1b.png",
        b"/image %s" % os.fsencode(tmp_path / "torn.jpg"),
        b"/budget many",
        b"/budget 500",
        b"/budget",
        b"/stats now",
        b"/frobnicate",
        b"\xff?",
        b"",
        QUESTIONS[0].encode(),
    ]
    status, out, err = piped(capsys, monkeypatch, b"\n".join(lines), DEMO, "--image", scenes[0])
    assert status == 2  # something in the pipe was not answered
    assert out.count("\n") == 1
    errors = err.splitlines()
    assert all(line.startswith("error: ") and line.isprintable() for line in errors)
    for line, part in zip(
        errors,
        [
            "does not exist",
            "torn.jpg",
            "a visual-token budget of 'many'",
            "500 visual tokens asked for; expected at most 336, which the bundle was opened with",
            "/budget; expected /budget B|P%",
            "/stats now; expected /stats",
            "no command /frobnicate; expected /image, /budget, /stats, /history, /clear, /help, /quit",
            "lone surrogate",
        ],
        strict=True,
    ):
        assert part in line


def test_a_conversation_that_outgrows_the_text_limit_says_what_helps(
    scenes: list[Path], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "".join(f"{QUESTIONS[1]}\n" for _ in range(6)) + f"/clear\n{QUESTIONS[1]}\n{'why ' * 100}\n"
    status, out, err = piped(capsys, monkeypatch, lines, DEMO, "--image", scenes[0])
    *outgrown, cleared, long = err.splitlines()
    assert outgrown
    assert all("a conversation of" in line and "/clear" in line for line in outgrown)
    assert cleared == "What was said is forgotten; pictures stay."
    assert "/clear" not in long
    assert "text tokens asked for" in long
    assert out.count("\n") == 7 - len(outgrown)
    assert out.splitlines()[0] == out.splitlines()[-1]  # the first question again
    assert status == 2


def test_a_question_that_fails_leaves_the_conversation_as_it_was(golden: hired_runtime.Model, picture: Path) -> None:
    talk = Conversation(golden, {**OPTIONS, "max_new_tokens": 6}, (read(str(picture)),), remember=True)
    with pytest.raises(LimitError):
        list(talk.ask("why " * 200))
    first = "".join(talk.ask("What is it?"))
    before = talk.exchanges
    pieces = talk.ask("And why?")
    next(pieces)
    pieces.close()  # as Ctrl-C does
    assert talk.exchanges == before
    again = "".join(talk.ask("And why?"))
    session = golden.session([picture], max_new_tokens=6)
    assert [first, again] == [session.ask("What is it?").text, session.ask("And why?").text]
    assert [each.text for each in talk.exchanges] == [first, again]
    assert [len(each.pictures) for each in talk.exchanges] == [1, 0]


def test_another_picture_joins_where_there_is_room(golden: hired_runtime.Model, tmp_path: Path) -> None:
    paths = [tmp_path / f"{seed}.png" for seed in range(3)]
    for seed, path in enumerate(paths):
        Image.new("RGB", (90 + 10 * seed, 70), (80 * seed, 40, 9)).save(path)
    talk = Conversation(golden, {**OPTIONS, "max_new_tokens": 3}, (read(str(paths[0])),), remember=True)
    said = ["".join(talk.ask("What is it?"))]
    assert not talk.add_picture(str(paths[1]))
    said.append("".join(talk.ask("And this?")))
    session = golden.session([paths[0]], max_new_tokens=3)
    assert said == [session.ask("What is it?").text, session.ask("And this?", [paths[1]]).text]
    assert talk.add_picture(str(paths[2]))  # the third of two: everything before it is forgotten
    assert talk.exchanges == ()
    assert "".join(talk.ask("What is it?")) == golden.ask("What is it?", [paths[2]], max_new_tokens=3).text


def test_another_picture_takes_the_place_of_the_only_one(demo: hired_runtime.Model, scenes: list[Path]) -> None:
    talk = Conversation(demo, OPTIONS, (read(str(scenes[0])),), remember=True)
    list(talk.ask(QUESTIONS[0]))
    said = inline.run(talk, f"/image '{scenes[1]}'")  # as a terminal quotes a file that is dropped on it
    assert said.startswith("One picture fits this bundle: what was said and shown is forgotten.")
    assert "".join(talk.ask(QUESTIONS[1])) == demo.ask(QUESTIONS[1], [scenes[1]]).text


def test_a_budget_holds_from_the_next_question_on(golden: hired_runtime.Model, scenes: list[Path]) -> None:
    talk = Conversation(golden, {**OPTIONS, "max_new_tokens": 2}, (read(str(scenes[0])),), remember=True)
    list(talk.ask("What is it?"))
    assert inline.run(talk, "/budget 20%") == "A budget of 20% from the next question on."
    list(talk.ask("And this?"))
    expected = golden.ask("What is it?", [scenes[0]], visual_tokens="20%", max_new_tokens=1).selections[0]
    assert talk.last is not None
    assert talk.last.answer.selections[0].visual_tokens == expected.visual_tokens
    assert f"{expected.visual_tokens} of {expected.tiling.stock_tokens} (budget 20%)" in inline.run(talk, "/stats")
    inline.run(talk, "/budget 40%")
    assert "(budget 20%)" in inline.run(talk, "/stats")  # the answer's, not the next one's
    inline.run(talk, "/budget 20%")
    for text in ("100%", "many", "-3"):
        with pytest.raises((InputError, LimitError)):
            inline.run(talk, f"/budget {text}")
    assert talk.budget == "20%"
    full = Conversation(golden, {**OPTIONS, "policy": "full", "visual_tokens": None}, (), remember=True)
    with pytest.raises(InputError, match="keeps every visual token"):
        full.set_budget("20%")


@given(st.text(st.characters() | st.sampled_from("\x1b\x9b\x07\r\x08\u202e\u2028"), max_size=40))
def test_nothing_that_steers_a_terminal_is_shown(text: str) -> None:
    for shown, kept in ((plain(text), "\n\t"), (one_line(text), "\t")):
        steering = [c for c in shown if unicodedata.category(c) in ("Cc", "Zl", "Zp") and c not in kept]
        assert steering == []
        assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@given(st.text(st.characters(exclude_categories=["C", "Z"]) | st.sampled_from(" \n\t"), max_size=40))
def test_everything_else_is_shown_as_it_is(text: str) -> None:
    assert plain(text) == text


def test_an_answer_with_escape_sequences_is_written_out(capsys: Capture) -> None:
    terminal = Terminal()
    for piece in ("a\x1b]0;", "title\x07", "b\n"):
        terminal.show(piece)
    terminal.end_answer()
    terminal.end_answer()  # an empty one
    terminal.show("b")
    terminal.say("a remark")
    captured = capsys.readouterr()
    assert captured.out == "a\\x1b]0;title\\x07b\n\nb\n"
    assert captured.err == "a remark\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image", "/nowhere.png"], "/nowhere.png does not exist"),
        (["--visual-tokens", "many"], "a visual-token budget of 'many'"),
        (["--visual-tokens", "337"], "337 visual tokens asked for; expected at most 336"),
        (["--max-new-tokens", "17"], "17 new tokens asked for; expected at most 16"),
        (["--policy", "full", "--visual-tokens", "20%"], "policy 'full' with a budget of 20%"),
        (["--temperature", "-1"], "temperature -1.0"),
        (["--stop", ""], "an empty stop string"),
        (["--prompt", "?"], "unrecognized arguments"),
    ],
)
def test_what_cannot_begin_is_refused(options: list[str], message: str, capsys: Capture) -> None:
    assert message in refused(capsys, "chat", DEMO, *options)


def test_more_pictures_than_fit_are_refused(scenes: list[Path], capsys: Capture) -> None:
    line = refused(capsys, "chat", DEMO, "--image", scenes[0], "--image", scenes[1])
    assert "2 pictures asked for; expected at most 1" in line


def test_ctrl_c_in_a_pipe_ends_it(picture: Path) -> None:
    process = start(
        "chat",
        BUNDLE,
        "--image",
        picture,
        options=["-c", slow_steps(0.2)],
        stdin=-1,  # a pipe
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("What is it?\n")
    process.stdin.flush()
    process.stdout.read(1)  # it has begun
    os.killpg(process.pid, signal.SIGINT)
    status, _, stderr = finish(process)
    assert (status, stderr) == (130, "hired-edge: interrupted\n")


def test_a_first_ctrl_c_is_noted_and_a_second_breaks_in() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Stop() as stop:
        assert not stop.asked
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
