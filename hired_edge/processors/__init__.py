"""preprocessor_config.json -> `PreprocessRules`: a picture processor of `transformers` a file, and a line here each.

A processor is read here only if its arithmetic is reproduced to the last bit (`hired_runtime.preprocess`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hired_edge.preprocessing import PreprocessRules, refused
from hired_edge.processors import clip, got_ocr2

READERS: dict[str, Callable[[Mapping[str, Any]], PreprocessRules]] = {
    "single": clip.read_single,
    "anyres": clip.read_anyres,
    "dynamic": got_ocr2.read,
}
"""Kind of tiling -> what reads the processor that goes with it."""

FILES = ("preprocessor_config.json", "processor_config.json")
"""Of a checkpoint, the first that is there; the second as transformers 5 writes it."""


def unwrapped(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The picture processor's part of one of `FILES`.

    Raises:
        CheckpointError: what a processor_config.json has in its place is no object.
    """
    given = content.get("image_processor", content)
    if not isinstance(given, Mapping):
        raise refused("image_processor", given, "an object")
    return given


def preprocess_rules(preprocessor_config: Mapping[str, Any], kind: str) -> PreprocessRules:
    """Read a `transformers` preprocessor_config.json, of version 4 or 5 and with the old integer sizes too.

    Args:
        preprocessor_config: the file's contents; a processor_config.json with an `image_processor` inside is unwrapped.
        kind: the tiling that they are for (`TilingRules.kind`).

    Raises:
        CheckpointError: a processor, a step or a value that is not reproduced.
    """
    return READERS[kind](unwrapped(preprocessor_config))
