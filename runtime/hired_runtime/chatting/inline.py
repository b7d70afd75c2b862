"""The commands that are typed into a conversation: what they are called, and what they answer."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from typing import NamedTuple

from hired_edge.errors import InputError
from hired_runtime.chatting.conversation import Conversation
from hired_runtime.request import Answer


class Leave(Exception):
    """The conversation is over."""


class Command(NamedTuple):
    """Args:
    argument: what comes after the name, "" for nothing.
    help: a line.
    run: (the conversation, the argument) -> what is said.
    """

    argument: str
    help: str
    run: Callable[[Conversation, str], str]


def run(talk: Conversation, line: str) -> str:
    """What the command in `line`, which begins with "/", answers.

    Raises:
        Leave: it ends the conversation.
        InputError: it is none, its argument is missing or one too many, or whatever the command refuses.
        LimitError: a budget over what was opened.
    """
    name, _, argument = line.partition(" ")
    argument = argument.strip()
    command = COMMANDS.get(name)
    if command is None:
        got, known = f"no command {name[:40]}", ", ".join(COMMANDS)
        raise InputError(got, expected=known, fix="for a question that begins so, put a space before it")
    if bool(command.argument) != bool(argument):
        usage = f"{name} {command.argument}".strip()
        raise InputError(f"{name} {argument}".strip()[:40], expected=usage, fix="see /help")
    return command.run(talk, argument)


def _image(talk: Conversation, argument: str) -> str:
    path = _path(argument)
    if not talk.add_picture(path):
        return f"{path} comes with the next question."
    most = talk.model.limits.images
    room = "One picture fits" if most == 1 else f"{most} pictures fit"
    return f"{room} this bundle: what was said and shown is forgotten. {path} comes with the next question."


def _path(argument: str) -> str:
    """As typed, or as a terminal writes a file that is dropped on it: in quotes, or with backslashes."""
    if not os.path.exists(argument):
        try:
            parts = shlex.split(argument)
        except ValueError:
            parts = []
        if len(parts) == 1:
            argument = parts[0]
    return os.path.expanduser(argument)


def _budget(talk: Conversation, argument: str) -> str:
    talk.set_budget(argument)
    return f"A budget of {talk.budget} from the next question on."


def _stats(talk: Conversation, _: str) -> str:
    if talk.last is None:
        return "Nothing was answered yet."
    answer, budget = talk.last
    visual = [f"{each.visual_tokens} of {each.tiling.stock_tokens}" for each in answer.selections]
    return "\n".join(
        [
            f"time to first token  {answer.timings_ms['ttft']:.1f} ms",
            f"speed                {_speed(answer)}",
            f"prompt               {answer.prompt_tokens + sum(each.visual_tokens for each in answer.selections)} "
            f"positions, {answer.cached_tokens} of them cached",
            f"visual tokens        {', '.join(visual) or 'none'} (budget {budget})",
            f"key-value cache      {talk.model.cache_bytes / 2**20:.1f} MiB",
            f"memory               {answer.peak_memory_mb:.0f} MiB at most so far",
        ]
    )


def _speed(answer: Answer) -> str:
    rate = answer.decode_tokens_per_s
    count = f"{len(answer.tokens)} token{'s' * (len(answer.tokens) != 1)}"
    return count if rate is None else f"{count}, {rate:.1f} tokens/s"


def _history(talk: Conversation, _: str) -> str:
    lines = []
    for exchange in talk.exchanges:
        lines += [f"[{name}]" for name in exchange.pictures]
        lines += [f"> {exchange.prompt}", exchange.text]
    return "\n".join(lines) or "Nothing was said yet."


def _clear(talk: Conversation, _: str) -> str:
    talk.clear()
    return "What was said is forgotten; pictures stay."


def _help(_: Conversation, __: str) -> str:
    usages = {f"{name} {command.argument}".strip(): command.help for name, command in COMMANDS.items()}
    width = max(map(len, usages))
    return "\n".join(f"{usage:<{width}}  {text}" for usage, text in usages.items())


def _quit(_: Conversation, __: str) -> str:
    raise Leave


COMMANDS = {
    "/image": Command("PATH", "another picture, from the next question on", _image),
    "/budget": Command("B|P%", "another visual-token budget, up to what the bundle was opened with", _budget),
    "/stats": Command("", "what the last answer took", _stats),
    "/history": Command("", "what was said", _history),
    "/clear": Command("", "forget what was said; pictures stay", _clear),
    "/help": Command("", "this list", _help),
    "/quit": Command("", "end, as Ctrl-D does; Ctrl-C stops an answer", _quit),
}
