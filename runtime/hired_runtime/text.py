"""Token ids -> text while they arrive: whole characters only, and nothing of a stop string.

Knows nothing about where the ids come from, nor which of them end an answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tokenizers import Tokenizer

from hired_edge.errors import InputError
from hired_edge.prompt_rules import tokenizer_refused

_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
_UNFINISHED = "\ufffd"


class Detokenizer:
    """Decodes ids one by one; what it returns, joined, is `tokenizer.decode` of all of them.

    A text is held back while a later token could still change it: an unfinished character, or a run of byte-fallback
    tokens (`<0xE4>`), which the tokenizer decodes as a whole or not at all.

    Args:
        skip_special_tokens: leave special tokens out of the text.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool = True) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._skipped = {index for index, token in added.items() if token.special and skip_special_tokens}
        # Decoders treat the first token in a way of their own (Llama's drops a space), so the ids returned last stay as
        # context: a text is what the pending ids add to it.
        self._context: list[int] = []
        self._pending: list[int] = []

    def push(self, token_id: int) -> str:
        """The text that `token_id` completes, often one word, sometimes empty."""
        token = None if token_id in self._skipped else self._tokenizer.id_to_token(token_id)
        if token is None:  # special, or one of the rows that pad a model's vocabulary
            return ""
        self._pending.append(token_id)
        if _BYTE_TOKEN.fullmatch(token):
            return ""
        text = self._text()
        return "" if text.endswith(_UNFINISHED) else self._release(text)

    def flush(self) -> str:
        """What was held back, after the last token; bytes that make no character come as U+FFFD."""
        return self._release(self._text()) if self._pending else ""

    def _text(self) -> str:
        before = self._decode(self._context)
        return self._decode(self._context + self._pending)[len(before) :]

    def _decode(self, ids: list[int]) -> str:
        if not ids:
            return ""
        with tokenizer_refused("decode what the model answers"):
            return self._tokenizer.decode(ids, skip_special_tokens=False)

    def _release(self, text: str) -> str:
        self._context, self._pending = self._pending, []
        return text


class StopStrings:
    """Ends a text before the first stop string, however the text is cut into pieces.

    Args:
        stops: the strings; where several occur, the one that is complete first counts, the longer one of two.

    Attributes:
        found: the stop string that ended the text, None so far.

    Raises:
        InputError: a stop string is empty.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if "" in stops:
            raise InputError("an empty stop string", expected="at least one character", fix="leave it out")
        self.found: str | None = None
        self._stops = tuple(stops)
        self._held = ""

    def push(self, text: str) -> str:
        """What can be shown of the text so far; nothing once a stop string was found."""
        if self.found is not None:
            return ""
        text = self._held + text
        matches = [(start + len(stop), start, stop) for stop in self._stops if (start := text.find(stop)) >= 0]
        if matches:
            _, start, self.found = min(matches)
            self._held = ""
            return text[:start]
        shown = len(text) - self._beginning(text)
        self._held = text[shown:]
        return text[:shown]

    def flush(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return held

    def _beginning(self, text: str) -> int:
        """The length of the longest end of `text` that begins a stop string."""
        longest = min(len(text), max((len(stop) - 1 for stop in self._stops), default=0))
        lengths = range(longest, 0, -1)
        return next((n for n in lengths if any(stop.startswith(text[-n:]) for stop in self._stops)), 0)


class TextStream:
    """An answer as it grows: ids in, text to show out.

    Args:
        stops: strings that end the answer and are not shown.

    Attributes:
        stopped: whether a stop string was found; no more ids are needed then.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        self._detokenizer = Detokenizer(tokenizer)
        self._stops = StopStrings(stops)

    @property
    def stopped(self) -> bool:
        return self._stops.found is not None

    def push(self, token_id: int) -> str:
        """The text to show after one more token."""
        return self._stops.push(self._detokenizer.push(token_id))

    def flush(self) -> str:
        """The rest of the text, after the last token."""
        return self._stops.push(self._detokenizer.flush()) + self._stops.flush()
