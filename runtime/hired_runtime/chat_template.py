"""A checkpoint's chat template: messages in, one string out, as transformers renders it.

The template runs in a sandbox that bounds its time and memory, with the settings, filters and globals that templates on
the Hub are written for. Knows nothing about token ids or pictures: a picture is a part of a message like any other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes, pass_environment
from jinja2.ext import Extension
from jinja2.parser import Parser

from hired_edge.errors import CheckpointError, InputError
from hired_edge.prompt_rules import MOST_CHARACTERS
from hired_runtime.template_meter import TooMuchError
from hired_runtime.template_sandbox import BoundedEnvironment

_PROBE = "a text to look for"
_MEND = "mend chat_template.jinja in the checkpoint and export it again"
_MOST_LAYOUT = 100
"""Characters of a date's layout."""


class ChatTemplate:
    """A compiled chat template.

    Args:
        source: the template's text (chat_template.jinja).
        variables: what the template may name besides the messages: `bos_token`, `eos_token` and so on.
        image_token: the string that stands for a picture in the rendered text.

    Attributes:
        takes_parts: whether a message's content is a list of parts; if not, it is one string that holds `image_token`
            and a line break for each picture, as LLaVA was trained.

    Raises:
        CheckpointError: the template is not valid jinja2, or takes too much time or memory for one question.
    """

    def __init__(self, source: str, variables: Mapping[str, str], image_token: str) -> None:
        self.source = source
        self._variables = dict(variables)
        self._image_token = image_token
        self._environment = BoundedEnvironment(
            [_Generation, "jinja2.ext.loopcontrols"],
            {"tojson": _tojson},
            {"raise_exception": _raise_exception, "strftime_now": _strftime_now},
        )
        self._template = self._compiled()
        self.takes_parts = self._probe(parts=True) or not self._probe(parts=False)

    def render(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool) -> str:
        """The rendered text of `messages`, each {"role": str, "content": list of parts}.

        Raises:
            InputError: the template refuses these messages (`raise_exception`).
            CheckpointError: the template fails on them.
        """
        content = self._as_parts if self.takes_parts else self._as_string
        rendered = [{"role": message["role"], "content": content(message["content"])} for message in messages]
        try:
            return self._run(rendered, add_generation_prompt)
        except _RefusalError as error:
            raise InputError(
                f"the chat template refuses these messages ({_one_line(error)})",
                expected="roles and parts as the model was trained on",
                fix="change the messages",
            ) from None
        except TooMuchError as error:
            raise _too_much(error) from None
        except Exception as error:  # a template is a program: it can fail in any way
            raise CheckpointError(
                f"the chat template fails on these messages ({type(error).__name__}: {_one_line(error)})",
                expected="a template for system, user and assistant messages",
                fix=_MEND,
            ) from None

    def _compiled(self) -> Template:
        if len(self.source) > MOST_CHARACTERS:
            got, expected = f"has {len(self.source)} characters", f"at most {MOST_CHARACTERS}"
        else:
            expected = "a jinja2 template"
            try:
                return self._environment.compiled(self.source)
            except TemplateSyntaxError as error:
                got = f"is not valid at line {error.lineno} ({error.message})"
            except (RecursionError, SyntaxError, MemoryError):  # Python, which it becomes, has bounds
                got = "is nested too deeply"
            except ValueError:
                got = "has a number of too many digits"
        raise CheckpointError(f"the chat template {got}", expected=expected, fix=_MEND)

    def _run(self, messages: list[dict[str, Any]], add_generation_prompt: bool) -> str:
        given = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": add_generation_prompt}
        contents = [message["content"] for message in messages]
        parts = [part for content in contents if not isinstance(content, str) for part in content]
        texts = [content for content in contents if isinstance(content, str)]
        characters = sum(map(len, texts)) + sum(len(part.get("text", "")) for part in parts)
        with self._environment.metered(characters, len(messages) + len(parts)):
            return self._template.render({**self._variables, **given})

    def _probe(self, *, parts: bool) -> bool:
        """Whether the template renders a picture and a text given as parts (or as one string) into those very two."""
        content = [{"type": "image"}, {"type": "text", "text": _PROBE}]
        shaped = self._as_parts(content) if parts else self._as_string(content)
        try:
            text = self._run([{"role": "user", "content": shaped}], True)
        except TooMuchError as error:
            raise _too_much(error) from None
        except Exception:  # as in `render`
            return False
        # A template that prints a list instead of reading it has rendered Python's notation.
        return text.count(self._image_token) == 1 and _PROBE in text and "'type'" not in text

    def _as_parts(self, content: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
        return [dict(part) for part in content]

    def _as_string(self, content: Sequence[Mapping[str, str]]) -> str:
        return "".join(part["text"] if part["type"] == "text" else f"{self._image_token}\n" for part in content)


class _RefusalError(TemplateError):
    """The template called `raise_exception`."""


class _Generation(Extension):
    """`{% generation %}` marks an assistant's words for training; here they are just rendered."""

    tags: ClassVar[set[str]] = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def _too_much(error: TooMuchError) -> CheckpointError:
    return CheckpointError(
        f"the chat template wastes time or memory ({error})",
        expected="one that goes through the messages and writes them",
        fix=_MEND,
    )


def _raise_exception(message: str) -> None:
    raise _RefusalError(message)


def _strftime_now(layout: str) -> str:
    if len(layout) > _MOST_LAYOUT or re.search("%[^a-zA-Z%]*[0-9]", layout):  # a width, which some systems fill
        raise TooMuchError("it writes a date with a width")
    return datetime.now().strftime(layout)


@pass_environment
def _tojson(
    environment: BoundedEnvironment,
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """jinja2's own filter escapes HTML, which no model was trained on. Written piece by piece: an indent multiplies."""
    encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    return "".join(map(environment.meter.made, encoder.iterencode(value)))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
