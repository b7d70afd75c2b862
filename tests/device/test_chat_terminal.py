"""`hired-edge chat` on a terminal: streaming, in-line commands, Ctrl-C, and a terminal that is left as it was found."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hired_runtime
from hired_runtime.chatting.plain import plain
from tests.tiny.commands import slow_steps
from tests.tiny.terminals import OnTerminal

ROOT = Path(__file__).parents[2]
BUNDLE, DEMO = ROOT / "tests/golden/bundle", ROOT / "demo/bundle"
NEXT = "\n> "
STOPPED = "(stopped: neither the question nor its answer counts)"
FAILING = """
import sys
from hired_edge.cli import main
from hired_runtime.chatting import inline

def fail(*arguments):
    raise RuntimeError("a bug, for this test")

inline.COMMANDS["/stats"] = inline.COMMANDS["/stats"]._replace(run=fail)
sys.exit(main(sys.argv[3:]))
"""


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in every run, since what the golden model says to it is long."""
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (97, 130, 3), np.uint8)).save(path)
    return path


def test_a_conversation(picture: Path) -> None:
    """Streaming, a stop, every command, lines recalled: in one process, since each takes a second to start."""
    model = hired_runtime.open(BUNDLE, visual_tokens="40%", threads=1)
    session = model.session([picture], max_new_tokens=20)
    whole = [session.ask("What is it?"), session.ask("Why?", visual_tokens="20%", images=[picture])]
    arguments = ("chat", BUNDLE, "--image", picture, "--visual-tokens", "40%", "--max-new-tokens", 20, "--threads", 1)
    with OnTerminal(*arguments, program=slow_steps(0.02)) as terminal:
        assert "/help says what else there is. A budget of 40%." in terminal.until(NEXT)
        assert terminal.attributes() != terminal.found  # readline has it

        terminal.send("What is it?\n")
        terminal.until("What is it?\r\n")
        begun = len(terminal.shown)
        while not terminal.shown[begun:]:
            terminal.look(0.1)
        early = terminal.shown[begun:]
        assert terminal.attributes() == terminal.found  # while it answers
        terminal.send("\x03")
        stopped = terminal.until(NEXT)
        assert stopped.endswith(f"\r\n{STOPPED}\r{NEXT}")
        text, other = (plain(answer.text).replace("\n", "\r\n") for answer in whole)
        assert text.startswith(early.partition("^C")[0])
        assert len(early) < len(text)

        terminal.send("/history\n")
        assert "Nothing was said yet." in terminal.until(NEXT)
        terminal.send("What is it?\n")
        assert terminal.until(NEXT) == f"What is it?\r\n{text}\r{NEXT}"
        terminal.send("/stats\n")
        stats = terminal.until(NEXT)
        count, selection = len(whole[0].tokens), whole[0].selections[0]
        assert f"{count} tokens, " in stats
        assert f"{selection.visual_tokens} of {selection.tiling.stock_tokens} (budget 40%)" in stats
        assert "key-value cache" in stats
        positions = whole[0].prompt_tokens + selection.visual_tokens
        assert f"{positions} positions, {positions - 1} of them cached" in stats  # the question that was stopped

        terminal.send("/budget 20%\n")
        assert "A budget of 20%" in terminal.until(NEXT)
        terminal.send(f"/image {picture}\n")
        assert "comes with the next question." in terminal.until(NEXT)
        terminal.send("Why?\n")
        assert terminal.until(NEXT) == f"Why?\r\n{other}\r{NEXT}"
        terminal.send("/help\n")
        shown = terminal.until(NEXT)
        assert all(f"\n{name}" in shown for name in ("/image PATH", "/budget B|P%", "/stats", "/clear", "/quit"))

        terminal.send("half a line\x03")
        assert "(Ctrl-C again, Ctrl-D or /quit ends)" in terminal.until(NEXT)
        terminal.send("\x1b[A\x1b[A\n")  # two lines up: the one before /help
        assert terminal.until("\r\n").endswith("Why?\r\n")
        terminal.until(NEXT)
        terminal.send("\x04")
        assert terminal.ended() == 0
        assert terminal.shown.endswith("\r\n")
        assert terminal.attributes() == terminal.found


@pytest.mark.parametrize(
    ("way", "status"),
    [("/quit\n", 0), ("\x04", 0), ("\x03", 0), ("/stats\n", 1), ("SIGTERM", 143), ("SIGHUP", 129), ("\x1c", 131)],
    ids=["quit", "ctrl-d", "ctrl-c", "an error", "SIGTERM", "SIGHUP", "ctrl-backslash"],
)
def test_every_way_out_leaves_the_terminal_as_it_was(way: str, status: int) -> None:
    with OnTerminal("chat", DEMO, "--threads", 1, program=FAILING) as terminal:
        terminal.until(NEXT)
        assert terminal.attributes() != terminal.found
        if way.startswith("SIG"):
            os.kill(terminal.process.pid, getattr(signal, way))
        else:
            terminal.send(way)
        if way == "\x03":
            terminal.until(NEXT)
            terminal.send(way)
        assert terminal.ended() == status, terminal.shown
        assert terminal.attributes() == terminal.found
        assert ("a bug, for this test" in terminal.shown) == (way == "/stats\n")
        assert terminal.shown.count("\x1b[?2004h") == terminal.shown.count("\x1b[?2004l")  # pasting, too


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_an_answer(number: signal.Signals) -> None:
    with OnTerminal("chat", BUNDLE, "--threads", 1, program=slow_steps(0.2)) as terminal:
        terminal.until(NEXT)
        terminal.send("What is it?\n")
        terminal.until("\r\n")
        time.sleep(0.5)
        assert terminal.attributes() == terminal.found  # it is not at the prompt
        os.kill(terminal.process.pid, number)
        assert terminal.ended() == 128 + number
        assert terminal.attributes() == terminal.found
