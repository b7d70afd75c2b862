"""The tokenizer of Mistral 7B, 32,000 words, as a LLaVA checkpoint has it: from the SentencePiece model inside the
package mistral-common, without a download.

A SentencePiece model of kind BPE joins the two neighbours whose union is the piece of the highest score. The same as
merges: every way to split a piece into two others, by falling score, then by the piece's id. `<image>` and `<pad>`
follow behind the words.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

from hired_edge.errors import CheckpointError, MissingExtraError

MODEL = "data/tokenizer.model.v1"
SPECIAL = ("<unk>", "<s>", "</s>")
ADDED = ("<image>", "<pad>")


def write(folder: Path, config: Mapping[str, Any]) -> None:
    """Writes tokenizer.json over the one in `folder`.

    Args:
        config: a config.json in Hub layout.

    Raises:
        MissingExtraError: mistral-common or sentencepiece is not installed.
        CheckpointError: the config's image token is not the first behind the words, or there is no room for both.
    """
    pieces = dict(_pieces())
    image, room = config["image_token_index"], config["text_config"].get("vocab_size", len(pieces))
    if image != len(pieces) or room < len(pieces) + len(ADDED):
        raise CheckpointError(
            f"config.json says image_token_index {image} and vocab_size {room}",
            expected=f"{len(pieces)}, and at least {len(pieces) + len(ADDED)}, for the words of Mistral 7B",
            fix="leave --tokenizer out",
        )
    tokenizer(pieces).save(str(folder / "tokenizer.json"))
    path = folder / "tokenizer_config.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**facts, "pad_token": "<pad>"}, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _pieces() -> Iterator[tuple[str, float]]:
    """Every piece and its score, in the order of their ids."""
    try:
        sentencepiece = import_module("sentencepiece")
        path = files("mistral_common") / MODEL
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"no module named {error.name}",
            expected="mistral-common and sentencepiece, for --tokenizer",
            fix="run: pip install mistral-common sentencepiece",
        ) from None
    model = sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
    for index in range(model.get_piece_size()):
        yield model.id_to_piece(index), model.get_score(index)


def tokenizer(pieces: Mapping[str, float]) -> Tokenizer:
    """Args: pieces: and their scores, in the order of their ids."""
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    splits = [
        (-score, vocabulary[piece], (piece[:at], piece[at:]))
        for piece, score in pieces.items()
        for at in range(1, len(piece))
        if piece[:at] in vocabulary and piece[at:] in vocabulary
    ]
    merges = [halves for _, _, halves in sorted(splits)]
    made = Tokenizer(models.BPE(vocabulary, merges, unk_token=SPECIAL[0], fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    begin = SPECIAL[1]
    made.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", pair=f"{begin} $A {begin}:1 $B:1", special_tokens=[(begin, vocabulary[begin])]
    )
    made.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in (*SPECIAL, *ADDED)])
    return made
