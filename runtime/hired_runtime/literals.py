"""Tells the special tokens that a chat template writes from the same strings in a person's text.

Before a template runs, `Literals.hide` names the strings in a person's texts by private-use characters; afterwards,
whatever string of a special token is found is the template's own. `Literals.reveal` then swaps the roles: the
template's tokens get names, the texts read as they were written, and an encoder that knows the tokens by those names
only sees one text, whole, so that nothing but the tokens themselves differs from encoding it all at once.

Knows nothing about messages, pictures or what the tokens mean.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from tokenizers import AddedToken, Tokenizer

from hired_edge.errors import CheckpointError, InputError
from hired_edge.prompt_rules import TOKENIZER_MEND, tokenizer_refused

# A token's name is one private-use character: a template may strip or upper-case a text and still carries it through.
_FIRST_NAME, _LAST_NAME = 0xF0000, 0xFFFFD
_MOST_PIECES = 2**24
"""Characters of all beginnings and endings of tokens."""
_USER, _OWN = range(0xE000, 0xF900), range(0xFDD0, 0xFDD4)


class Literals:
    """The strings of a tokenizer's added tokens.

    Args:
        tokens: the strings, none empty; at least one.

    Raises:
        CheckpointError: more of them than there are names, or so long that their beginnings fill the memory.
    """

    def __init__(self, tokens: list[str]) -> None:
        most = _LAST_NAME - _FIRST_NAME
        if len(tokens) > most or sum(len(token) ** 2 for token in tokens) > _MOST_PIECES:
            got = f"{len(tokens)} added tokens of up to {max(map(len, tokens))} characters in the tokenizer"
            raise CheckpointError(got, expected=f"at most {most}, of a few words each", fix=TOKENIZER_MEND)
        self._tokens = sorted(tokens, key=lambda token: (-len(token), token))  # of two that match, the longer one
        self._pattern = re.compile("|".join(re.escape(token) for token in self._tokens))
        self._names = {token: chr(_FIRST_NAME + index) for index, token in enumerate(self._tokens)}
        self._beginnings = tuple({token[:end] for token in tokens for end in range(1, len(token))})
        self._endings = tuple({token[start:] for token in tokens for start in range(1, len(token))})

    def hide(self, text: str, mark: str) -> str:
        """`text` with each special token's string named by `mark`, and bare marks where an end could grow to one.

        A text with neither comes back as it is. The bare marks stand inside of white space, which a template may strip.
        """
        text = self._pattern.sub(lambda match: f"{mark}{self._names[match[0]]}{mark}", text)
        body = text.strip()
        if not body:
            return text
        start = len(text) - len(text.lstrip())
        end = start + len(body)
        head = mark * 2 if body.startswith(self._endings) else ""
        tail = mark * 2 if body.endswith(self._beginnings) else ""
        return f"{text[:start]}{head}{body}{tail}{text[end:]}"

    def reveal(self, rendered: str, user_mark: str, own_mark: str) -> str:
        """`rendered` with the template's special tokens named by `own_mark`, and a person's texts as they were.

        Raises:
            CheckpointError: the template has cut a text within a name.
        """
        rendered = self._pattern.sub(lambda match: f"{own_mark}{self._names[match[0]]}{own_mark}", rendered)
        named = re.compile(f"{user_mark}([{chr(_FIRST_NAME)}-{chr(_LAST_NAME)}]?){user_mark}")
        rendered = named.sub(lambda match: self._tokens[ord(match[1]) - _FIRST_NAME] if match[1] else "", rendered)
        if user_mark in rendered:
            raise CheckpointError(
                "the chat template cuts a text inside a special token's string",
                expected="a template that carries texts through",
                fix="leave strings like <image> out of the texts",
            )
        return rendered

    def separate_encoder(self, tokenizer: Tokenizer, mark: str) -> Callable[[str], list[int]]:
        """An encoder with the rules of `tokenizer`, whose added tokens go by their names between two marks.

        It adds nothing before or after a text.

        Raises (when called):
            InputError: the tokenizer makes a special token of plain text.
        """
        with tokenizer_refused("be made again without its added tokens"):
            content = json.loads(tokenizer.to_str())
            content["added_tokens"] = []
            separate = Tokenizer.from_str(json.dumps(content))
        unknown = content["model"].get("unk_token")
        ids: dict[int, int] = {}
        for index, token in tokenizer.get_added_tokens_decoder().items():
            name = f"{mark}{self._names[token.content]}{mark}"
            separate.add_tokens([AddedToken(name, lstrip=token.lstrip, rstrip=token.rstrip, normalized=False)])
            marked = separate.token_to_id(name)
            assert marked is not None
            ids[marked] = index
        special = {index: tokenizer.id_to_token(index) for index in ids.values()}

        def encode(text: str) -> list[int]:
            with tokenizer_refused("encode this text"):
                raw = separate.encode(text, add_special_tokens=False).ids
            for index in raw:
                if index not in ids and special.get(index, unknown) != unknown:
                    raise InputError(
                        f"the tokenizer makes the special token {special[index]} of plain text",
                        expected="texts that stay data",
                        fix=f"leave {special[index]} out of the texts",
                    )
            return [ids.get(index, index) for index in raw]

        return encode


def unused_marks(text: str) -> tuple[str, str]:
    """A user's mark and the template's own, neither of them in `text`.

    The first is any private-use character. The second is one of four that Unicode reserves for no use: for each of them
    that is ever needed an encoder is made, with a whole vocabulary.

    Raises:
        InputError: it holds all of them.
    """
    used = set(text)
    user, own = (next((char for char in map(chr, marks) if char not in used), None) for marks in (_USER, _OWN))
    if user is None or own is None:
        raise InputError(
            "the texts hold every character that could mark a special token",
            expected="ordinary text",
            fix=f"leave U+{_OWN[0]:X} to U+{_OWN[-1]:X} out of the messages",
        )
    return user, own
