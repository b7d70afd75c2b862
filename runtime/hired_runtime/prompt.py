"""Messages -> token ids and the places where visual tokens are spliced in.

Text is encoded whole, around the places of the pictures, exactly as transformers' processor does. What a person wrote
is data: a literal `<image>` or `</s>` in it is encoded as those characters and is never a special token.

Knows nothing about pictures beyond their number, nor about the model: the splice needs no id of its vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer
from tokenizers.processors import TemplateProcessing

from hired_edge.errors import CheckpointError, InputError
from hired_edge.manifest import PromptFiles
from hired_edge.prompt_rules import TOKENIZER_MEND, check_token_ids, tokenizer_refused
from hired_runtime.chat_template import ChatTemplate
from hired_runtime.literals import Literals, unused_marks

IMAGE_TOKEN = "<image>"
FILES = PromptFiles("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", None)
ROLES = ("system", "user", "assistant")

_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True, eq=False)
class EncodedPrompt:
    """A prompt's text tokens and where its pictures go.

    Attributes:
        ids: (S,) int64, the text tokens; no id stands for a picture.
        splices: for each picture in order, the index in `ids` before which its visual tokens are inserted; it never
            falls from one picture to the next.
    """

    ids: NDArray[np.int64]
    splices: tuple[int, ...]


def question(text: str, pictures: int = 1) -> list[dict[str, Any]]:
    """One user message: the pictures first, then the text."""
    content = [{"type": "image"} for _ in range(pictures)]
    return [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]


class PromptTemplate:
    """A tokenizer and its chat template, which together turn messages into token ids.

    Args:
        tokenizer: it is changed: truncation and padding go off, `<image>` becomes a special token if it is none.
        config: the content of tokenizer_config.json (special tokens, `add_bos_token`).
        chat_template: the template's text.
        around: special tokens that go before and behind each picture, "" for none.

    Attributes:
        tokenizer: for decoding what the model answers.
        special_tokens: {"bos_token": "<s>", ...}, those that the tokenizer has.

    Raises:
        CheckpointError: the template is not valid.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: Mapping[str, Any],
        chat_template: str,
        around: tuple[str, str] = ("", ""),
    ) -> None:
        self.tokenizer = tokenizer
        self.special_tokens = {name: text for name in _NAMED_TOKENS if (text := _content(config.get(name)))}
        self._image_token = _content(config.get("image_token")) or IMAGE_TOKEN
        check_token_ids(tokenizer.get_vocab().values())
        with tokenizer_refused("take the special tokens of its config"):
            _prepare(tokenizer, config, self.special_tokens, self._image_token)
        self._template = ChatTemplate(chat_template, self.special_tokens, self._image_token)
        self._before, self._after = _around(tokenizer)
        added = tokenizer.get_added_tokens_decoder()
        self._literals = Literals([token.content for token in added.values()])
        self._image_id = tokenizer.token_to_id(self._image_token)
        self._framed = f"{around[0]}{self._image_token}{around[1]}"
        self._separate: dict[str, Callable[[str], list[int]]] = {}

    @classmethod
    def open(cls, folder: Path, files: PromptFiles = FILES, *, image_token: str | None = None) -> PromptTemplate:
        """Reads a bundle's prompt files.

        `image_token` is what stands for a picture in the template; None = as the config says, or `<image>`.

        Raises:
            CheckpointError: a file is missing or cannot be read.
        """
        try:
            content = (folder / files.tokenizer).read_text(encoding="utf-8")
            config = json.loads((folder / files.tokenizer_config).read_text(encoding="utf-8"))
            if not isinstance(config, dict):
                raise ValueError(f"{files.tokenizer_config} is not an object")
            template = (folder / files.chat_template).read_text(encoding="utf-8")
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(
                f"the tokenizer in {folder} cannot be read ({' '.join(str(error).split())})",
                expected=f"{files.tokenizer}, {files.tokenizer_config} and {files.chat_template}",
                fix=TOKENIZER_MEND,
            ) from None
        with tokenizer_refused(f"be read from {folder / files.tokenizer}"):
            tokenizer = Tokenizer.from_str(content)
        config = config if image_token is None else {**config, "image_token": image_token}
        return cls(tokenizer, config, template, (files.image_start, files.image_end))

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        pictures: int | None = None,
        *,
        add_generation_prompt: bool = True,
    ) -> EncodedPrompt:
        """Encodes messages.

        Args:
            messages: {"role": "system" | "user" | "assistant", "content": a str or a list of parts}; a part is
                {"type": "text", "text": str} or {"type": "image"}.
            pictures: how many pictures are given; None if as many as the messages have.
            add_generation_prompt: end with what makes the model answer.

        Raises:
            InputError: malformed messages, or another number of pictures than they have.
            CheckpointError: the template fails, or loses a picture.
        """
        chat = [_message(message, index) for index, message in enumerate(messages)]
        if not chat:
            raise _malformed("no messages", "at least one")
        parts = [part for message in chat for part in message["content"]]
        texts = [part["text"] for part in parts if part["type"] == "text"]
        wanted = len(parts) - len(texts)
        if pictures is not None and pictures != wanted:
            raise InputError(
                f"{pictures} pictures for messages with {wanted}",
                expected="one picture for each image part",
                fix="pass as many pictures as the messages have image parts",
            )
        user_mark, own_mark = unused_marks(self._template.source + "".join(texts))
        hide = self._literals.hide
        if all(hide(text, user_mark) == text for text in texts):
            rendered = self._rendered(chat, add_generation_prompt)
            with tokenizer_refused("encode this text"):
                ids = self.tokenizer.encode(rendered, add_special_tokens=False).ids
        else:
            for part in parts:
                if part["type"] == "text":
                    part["text"] = hide(part["text"], user_mark)
            rendered = self._rendered(chat, add_generation_prompt)
            ids = self._encode_separately(self._literals.reveal(rendered, user_mark, own_mark), own_mark)
        bos = self.special_tokens.get("bos_token")
        if bos is None or not rendered.startswith(bos):  # otherwise the template has written it
            ids = [*self._before, *ids, *self._after]
        return self._splice(np.asarray(ids, dtype=np.int64), wanted)

    def _rendered(self, chat: Sequence[Mapping[str, Any]], add_generation_prompt: bool) -> str:
        """The template's text with what goes around pictures; no text of a person's holds the image token any more."""
        rendered = self._template.render(chat, add_generation_prompt=add_generation_prompt)
        return rendered.replace(self._image_token, self._framed)

    def _splice(self, ids: NDArray[np.int64], wanted: int) -> EncodedPrompt:
        is_picture = ids == self._image_id
        positions = np.flatnonzero(is_picture)
        if len(positions) != wanted:
            raise CheckpointError(
                f"the chat template has written {len(positions)} pictures for {wanted}",
                expected=f"one {self._image_token} for each image part",
                fix="mend chat_template.jinja in the checkpoint, or put the pictures into user messages",
            )
        splices = positions - np.arange(wanted)
        return EncodedPrompt(ids=ids[~is_picture], splices=tuple(int(index) for index in splices))

    def _encode_separately(self, text: str, mark: str) -> list[int]:
        """The ids of a text whose special tokens are named by `mark`: any other occurrence of their strings is data."""
        if mark not in self._separate:
            self._separate[mark] = self._literals.separate_encoder(self.tokenizer, mark)
        return self._separate[mark](text)


def _message(message: Mapping[str, Any], index: int) -> dict[str, Any]:
    """A copy of a message with a list of parts as its content."""
    role = message.get("role") if isinstance(message, Mapping) else None
    if role not in ROLES:
        raise _malformed(f"message {index} has the role {role!r}", f"one of {', '.join(ROLES)}")
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, Sequence):
        raise _malformed(f"message {index} has a content of type {type(content).__name__}", "a text or a list of parts")
    if not content:  # templates look at the first part
        raise _malformed(f"message {index} has no part", "at least one")
    return {"role": role, "content": [_part(part, index) for part in content]}


def _part(part: Any, index: int) -> dict[str, str]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "image":
        return {"type": "image"}
    text = part.get("text") if kind == "text" else None
    if not isinstance(text, str):
        raise _malformed(
            f"message {index} has a part of type {kind!r} that is neither a picture nor a text",
            '{"type": "text", "text": "..."} or {"type": "image"}',
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:  # from a command line that is not UTF-8, or JSON's \ud800
        raise _malformed(f"message {index} holds a lone surrogate at character {error.start}", "Unicode text") from None
    return {"type": "text", "text": text}


def _malformed(got: str, expected: str) -> InputError:
    return InputError(got, expected=expected, fix="mend the messages")


def _content(token: Any) -> str | None:
    """A special token of tokenizer_config.json: a string, {"content": string}, or null."""
    content = token.get("content") if isinstance(token, Mapping) else token
    return content if isinstance(content, str) and content else None


def _prepare(tokenizer: Tokenizer, config: Mapping[str, Any], named: Mapping[str, str], image_token: str) -> None:
    """What transformers does to a tokenizer as it loads it, and no more truncation or padding."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    missing = [token for token in dict.fromkeys([*named.values(), image_token]) if token not in known]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in missing])
    if "add_bos_token" in config or "add_eos_token" in config:
        bos = named.get("bos_token") if config.get("add_bos_token") else None
        eos = named.get("eos_token") if config.get("add_eos_token") else None
        pieces = [f"{bos}:0" if bos else None, "$A:0", f"{eos}:0" if eos else None]
        tokenizer.post_processor = TemplateProcessing(
            single=[piece for piece in pieces if piece],
            special_tokens=[(token, tokenizer.token_to_id(token)) for token in (bos, eos) if token],
        )


def _around(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer puts before and after a text (the begin-of-text token, mostly)."""
    with tokenizer_refused("encode a letter"):
        bare, full = (tokenizer.encode("a", add_special_tokens=flag).ids for flag in (False, True))
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    raise CheckpointError(
        "the tokenizer's post_processor changes the ids of a text",
        expected="one that puts tokens before and behind it",
        fix=TOKENIZER_MEND,
    )
