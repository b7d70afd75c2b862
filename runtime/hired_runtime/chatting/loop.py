"""Reads a line, answers it, and so on, until there is no more. An error costs a line, not the conversation."""

from __future__ import annotations

from contextlib import closing

from hired_edge.errors import HiredEdgeError
from hired_runtime.chatting import inline
from hired_runtime.chatting.conversation import Conversation
from hired_runtime.chatting.plain import one_line
from hired_runtime.chatting.terminal import Stop, Terminal


def converse(talk: Conversation, terminal: Terminal) -> bool:
    """Whether every line was answered.

    Raises:
        KeyboardInterrupt: Ctrl-C where nobody types.
    """
    good, interrupts = True, 0
    while interrupts < 2:
        try:
            line = terminal.read()
            interrupts = 0
            if line.strip():
                _answer(talk, terminal, line)
        except KeyboardInterrupt:
            if not terminal.interactive:
                raise
            interrupts += 1
            terminal.say("\n(Ctrl-C again, Ctrl-D or /quit ends)" if interrupts == 1 else "")
        except HiredEdgeError as error:
            good = False
            terminal.say(f"error: {one_line(str(error))}")
        except EOFError:
            if terminal.interactive:
                terminal.say("")
            return good
        except inline.Leave:
            return good
    return good


def _answer(talk: Conversation, terminal: Terminal, line: str) -> None:
    if line.startswith("/"):
        terminal.say(inline.run(talk, line))
        return
    if not terminal.interactive:
        for piece in talk.ask(line.strip()):
            terminal.show(piece)
        terminal.end_answer()
        return
    if not _streamed(talk, terminal, line.strip()):
        terminal.say("(stopped: neither the question nor its answer counts)")


def _streamed(talk: Conversation, terminal: Terminal, prompt: str) -> bool:
    """Whether the answer came to its end; otherwise it was stopped."""
    try:
        with Stop() as stop, closing(talk.ask(prompt)) as pieces:
            for piece in pieces:
                terminal.show(piece)
                if stop.asked:
                    return False
    except KeyboardInterrupt:
        return False
    terminal.end_answer()
    return True
