"""The tokenizer of Mistral 7B, 32,000 words, as a LLaVA checkpoint has it: from the SentencePiece model inside the
package mistral-common, without a download. `<image>` and `<pad>` follow behind the words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from hired_edge.errors import CheckpointError, MissingExtraError
from hired_export.sentencepiece_model import converted, parse

MODEL = "data/tokenizer.model.v1"
ADDED = ("<image>", "<pad>")


def write(folder: Path, config: Mapping[str, Any]) -> None:
    """Writes tokenizer.json over the one in `folder`.

    Args:
        config: a config.json in Hub layout.

    Raises:
        MissingExtraError: mistral-common is not installed.
        CheckpointError: the config's image token is not the first behind the words, or there is no room for both.
    """
    try:
        model = parse((files("mistral_common") / MODEL).read_bytes(), MODEL)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"no module named {error.name}",
            expected="mistral-common, for --tokenizer",
            fix="run: pip install --no-deps mistral-common",
        ) from None
    words = len(model.pieces)
    image, room = config["image_token_index"], config["text_config"].get("vocab_size", words)
    if image != words or room < words + len(ADDED):
        raise CheckpointError(
            f"config.json says image_token_index {image} and vocab_size {room}",
            expected=f"{words}, and at least {words + len(ADDED)}, for the words of Mistral 7B",
            fix="leave --tokenizer out",
        )
    added = {token: words + index for index, token in enumerate(ADDED)}
    converted(model, {}, added, MODEL).save(str(folder / "tokenizer.json"))
    path = folder / "tokenizer_config.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**facts, "pad_token": "<pad>"}, indent=2, sort_keys=True) + "\n", encoding="utf-8")
