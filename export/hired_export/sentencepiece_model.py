"""tokenizer.model (SentencePiece, byte-pair encoding), as Llama and Mistral have it -> a tokenizer of `tokenizers`.

The file is a protobuf message of which a few fields count (sentencepiece_model.proto); they are read here, so that no
further package is needed. Only what these tokenizers have is taken: BPE, no normalisation, spaces as "▁".
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from hired_edge.errors import CheckpointError
from hired_edge.prompt_rules import TOKENIZER_MEND, tokenizer_refused

# Kinds of pieces.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
BPE = 2
MOST_CHARACTERS = 1000
"""Of a piece that is merged; SentencePiece itself makes them of at most 16."""
_SPACE = "▁"


@dataclass(frozen=True)
class Piece:
    """One entry of the vocabulary; the higher score is merged first."""

    text: str
    score: float
    kind: int


@dataclass(frozen=True)
class SentencePieceModel:
    """What of a tokenizer.model counts.

    Args:
        pieces: by id.
        byte_fallback: what is in no piece becomes bytes.
        first_space: a space is put before every text.
    """

    pieces: tuple[Piece, ...]
    byte_fallback: bool
    first_space: bool


def parse(content: bytes, name: str) -> SentencePieceModel:
    """Reads the file's bytes.

    Raises:
        CheckpointError: no such message, or a model of another kind.
    """
    try:
        fields = list(_fields(content))
        pieces = tuple(_piece(value) for number, value in fields if number == 1)
        (training,) = [dict(_fields(value)) for number, value in fields if number == 2] or [{}]
        (normalising,) = [dict(_fields(value)) for number, value in fields if number == 3] or [{}]
    except (ValueError, LookupError, TypeError, AttributeError, struct.error):
        raise CheckpointError(
            f"{name} holds no SentencePiece model", expected="one", fix="download the file again"
        ) from None
    longest = max((len(piece.text) for piece in pieces if piece.kind == NORMAL), default=0)
    if longest > MOST_CHARACTERS:  # how a piece is merged is found by trying all its cuts
        raise CheckpointError(
            f"{name} has a piece of {longest} characters",
            expected=f"at most {MOST_CHARACTERS}",
            fix="download the file again",
        )
    kinds = {
        "model_type": (training.get(3, 1), BPE),
        "precompiled_charsmap": (bool(normalising.get(2)), False),
        "remove_extra_whitespaces": (bool(normalising.get(4, True)), False),
        "escape_whitespaces": (bool(normalising.get(5, True)), True),
    }
    for field, (got, wanted) in kinds.items():
        if got != wanted or not pieces:
            raise CheckpointError(
                f"{name} has {field} {got} and {len(pieces)} pieces",
                expected=f"{wanted}: byte-pair encoding without normalisation, as Llama's",
                fix="save it as tokenizer.json with transformers' AutoTokenizer, after pip install sentencepiece",
            )
    return SentencePieceModel(pieces, bool(training.get(35, False)), bool(normalising.get(3, True)))


def converted(model: SentencePieceModel, config: Mapping[str, Any], added: Mapping[str, int], name: str) -> Tokenizer:
    """The tokenizer that gives the same ids.

    Args:
        model: the parsed file.
        config: tokenizer_config.json: `legacy` (the first space comes again after every special token),
            `add_bos_token`, `added_tokens_decoder`.
        added: added_tokens.json, content -> id.
        name: the file's, for errors.

    Raises:
        CheckpointError: added tokens that do not follow the vocabulary, or a vocabulary that makes no tokenizer.
    """
    ids = {piece.text: index for index, piece in enumerate(model.pieces)}
    unknown = next((piece.text for piece in model.pieces if piece.kind == UNKNOWN), None)
    merges = _merges(model, ids)
    with tokenizer_refused(f"be made of {name}"):
        tokenizer = Tokenizer(
            models.BPE(ids, merges, unk_token=unknown, fuse_unk=True, byte_fallback=model.byte_fallback)
        )
    legacy = config.get("legacy")
    if legacy is None or legacy:  # null means what transformers 4 takes it for
        prepend = [normalizers.Prepend(_SPACE)] if model.first_space else []
        tokenizer.normalizer = normalizers.Sequence([*prepend, normalizers.Replace(" ", _SPACE)])
    else:
        scheme = "first" if model.first_space else "never"
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, prepend_scheme=scheme, split=False)
    strip = [decoders.Strip(" ", 1, 0)] if model.first_space else []
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    tokenizer.decoder = decoders.Sequence(steps)
    for piece in model.pieces:
        if piece.kind in (UNKNOWN, CONTROL):
            tokenizer.add_special_tokens([AddedToken(piece.text, normalized=False, special=True)])
        elif piece.kind == USER_DEFINED:
            tokenizer.add_tokens([AddedToken(piece.text, normalized=False)])
    for index, token in _added(config, added, name):
        tokenizer.add_tokens([token])
        if tokenizer.token_to_id(token.content) != index:
            raise CheckpointError(
                f"{name} has {len(model.pieces)} pieces and the added token {token.content!a} has id {index}",
                expected=f"{tokenizer.token_to_id(token.content)}",
                fix="use tokenizer files that belong together",
            )
    begin = next((piece.text for piece in model.pieces if piece.kind == CONTROL), None)
    if begin is not None and config.get("add_bos_token", True):
        if ":" in begin or " " in begin or begin.startswith("$"):  # signs of TemplateProcessing's own
            raise CheckpointError(
                f"{name} begins texts with {begin!a}", expected="a token like <s>", fix=TOKENIZER_MEND
            )
        tokenizer.post_processor = TemplateProcessing(f"{begin} $A", f"{begin} $A {begin} $B", [(begin, ids[begin])])
    return tokenizer


def _merges(model: SentencePieceModel, ids: Mapping[str, int]) -> list[tuple[str, str]]:
    """Pairs of pieces that make a piece, the best first."""
    found = []
    for piece in model.pieces:
        if piece.kind == NORMAL:
            splits = ((piece.text[:i], piece.text[i:]) for i in range(1, len(piece.text)))
            pairs = [(left, right) for left, right in splits if left in ids and right in ids]
            found += [(-piece.score, ids[piece.text], ids[left], ids[right], left, right) for left, right in pairs]
    return [(left, right) for *_, left, right in sorted(found)]


def _added(config: Mapping[str, Any], added: Mapping[str, int], name: str) -> list[tuple[int, AddedToken]]:
    """Tokens of the other files, by id."""
    tokens = {
        index: AddedToken(_whole(content, name), normalized=False, special=True)
        for content, index in added.items()
        if isinstance(content, str) and type(index) is int
    }
    decoder = config.get("added_tokens_decoder")
    for index, token in decoder.items() if isinstance(decoder, Mapping) else ():
        if re.fullmatch("[0-9]{1,9}", str(index)) and isinstance(token, Mapping) and token.get("content"):
            flags = {key: bool(token.get(key)) for key in ("single_word", "lstrip", "rstrip", "normalized", "special")}
            tokens[int(index)] = AddedToken(_whole(str(token["content"]), name), **flags)
    return sorted(tokens.items(), key=lambda pair: pair[0])


def _whole(content: str, name: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in content):
        raise CheckpointError(
            f"a token that is added to {name} holds half a character",
            expected="text that UTF-8 can hold",
            fix="download the checkpoint's tokenizer files again",
        )
    return content


def _piece(message: Any) -> Piece:
    fields = dict(_fields(message))
    return Piece(fields[1].decode(), float(fields.get(2, 0.0)), fields.get(3, NORMAL))


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Protobuf's wire format: (number, value) of every field; a value is an integer, bytes, or a float of 32 bits."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, place = _varint(message, place)
        elif kind == 2:
            size, place = _varint(message, place)
            value, place = message[place : place + size], place + size
        elif kind in (1, 5):
            form, size = ("<d", 8) if kind == 1 else ("<f", 4)
            (value,) = struct.unpack(form, message[place : place + size])
            place += size
        else:
            raise ValueError(f"wire type {kind}")
        yield number, value
    if place > len(message):
        raise ValueError("the last field is cut")


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
        if shift > 63:
            raise ValueError("an integer of more than 64 bits")
