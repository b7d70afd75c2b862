"""`tokenizer.model`: SentencePiece's protobuf, converted and used."""

from __future__ import annotations

import struct
from pathlib import Path

from hired_edge.errors import CheckpointError
from hired_export.checkpoint import Checkpoint
from hired_export.sentencepiece_model import BPE, BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, converted, parse
from tests.fuzz.mutators import json_text, parts, protobuf
from tests.fuzz.mutators.protobuf import field
from tests.fuzz.surface import Feed, Surface
from tests.fuzz.surfaces.prompt import apart

MODEL, CONFIG, ADDED = "tokenizer.model", "tokenizer_config.json", "added_tokens.json"
FILES = (MODEL, CONFIG, ADDED)


def _piece(text: str, score: float, kind: int) -> bytes:
    number = b"\x15" + struct.pack("<f", score)  # field 2, of 32 bits
    return field(1, field(1, text.encode()) + number + field(3, kind))


def _model(*, fallback: bool) -> bytes:
    pieces = [_piece("<unk>", 0, UNKNOWN), _piece("<s>", 0, CONTROL), _piece("</s>", 0, CONTROL)]
    pieces += [_piece(f"<0x{byte:02X}>", 0, BYTE) for byte in range(256 if fallback else 0)]
    words = ["▁", *"abcdehit", "▁t", "th", "▁th", "the", "▁the", "at", "▁a", "cat", "▁cat"]
    pieces += [_piece(word, -float(place), NORMAL) for place, word in enumerate(words)]
    pieces.append(_piece("<image>", 0, USER_DEFINED))
    training = field(2, field(3, BPE) + field(35, int(fallback)))
    return b"".join(pieces) + training + field(3, field(1, b"identity") + field(3, 1) + field(4, 0) + field(5, 1))


def seeds() -> dict[str, bytes]:
    configs = {
        "legacy": b'{"legacy": true, "add_bos_token": true}',
        "new": b'{"legacy": false, "added_tokens_decoder": {"22": {"content": "<pad>", "special": true}}}',
    }
    found = {}
    for name, config in configs.items():
        found[name] = {MODEL: _model(fallback=name == "legacy"), CONFIG: config}
    found["added"] = {MODEL: _model(fallback=False), CONFIG: b"{}", ADDED: b'{"<pad>": 22}'}
    return {name: parts.joined(files) for name, files in found.items()}


def opened(folder: Path) -> Feed:
    def feed(data: bytes) -> None:
        files = parts.written(data, folder, FILES)
        if MODEL not in files:
            raise CheckpointError("no model", expected="one", fix="none")
        checkpoint = Checkpoint(folder)
        added = checkpoint.json(ADDED) if ADDED in files else {}
        tokenizer = converted(parse(files[MODEL], MODEL), checkpoint.json(CONFIG), added, MODEL)
        for text in ("the cat at the bat", "<s> \u00e9\U0001f600 <image>\n</s>", ""):
            tokenizer.decode(tokenizer.encode(text).ids)
        tokenizer.to_str()

    return apart(feed)


SURFACE = Surface(
    "tokenizer.model",
    opened,
    seeds,
    parts.of({MODEL: protobuf.mutated, CONFIG: json_text.of(), ADDED: json_text.of()}),
)
