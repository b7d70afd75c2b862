"""How a checkpoint's pictures are processed, from its own or its vision tower's preprocessor_config.json.

The Hub's layout has the file beside the weights. The original code takes the tower's, for whole pictures and for tiles,
and pads where config.json says `image_aspect_ratio: pad`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hired_edge.errors import CheckpointError
from hired_edge.planner.original import is_original, pads
from hired_edge.preprocessing import PreprocessRules, pad_to_square
from hired_edge.processors import FILES, preprocess_rules
from hired_edge.tiling import TilingRules
from hired_export.checkpoint import Checkpoint

CLIP_PROCESSORS = ("CLIPImageProcessor", "CLIPFeatureExtractor")


def read_preprocessing(checkpoint: Checkpoint, tiling: TilingRules) -> PreprocessRules:
    """The rules of the runtime's preprocessing.

    Raises:
        CheckpointError: no file, what it says is not reproduced, or its pictures do not fit the tower.
    """
    original = is_original(checkpoint.config)
    name, given = _original(checkpoint, tiling) if original else _found(checkpoint)
    rules = preprocess_rules(given, tiling.kind)
    if rules.image_size != tiling.image_size:
        raise CheckpointError(
            f"{name} makes pictures of {rules.image_size} px",
            expected=f"{tiling.image_size} px, the image_size of the vision tower",
            fix="use a vision tower and a preprocessor that belong together",
        )
    return pad_to_square(rules) if original and pads(checkpoint.config) else rules


def find_file(checkpoint: Checkpoint) -> tuple[str, Mapping[str, Any]] | None:
    """The file that says how pictures are processed, its name and its contents; None where there is none."""
    for name in FILES:
        if (checkpoint.root / name).is_file():
            return name, checkpoint.json(name)
    return None


def _found(checkpoint: Checkpoint) -> tuple[str, Mapping[str, Any]]:
    found = find_file(checkpoint)
    if found is None:
        raise CheckpointError(
            f"{checkpoint.root} holds no {FILES[0]}",
            expected=" or ".join(FILES),
            fix="download the checkpoint's other files as well",
        )
    return found


def _original(checkpoint: Checkpoint, tiling: TilingRules) -> tuple[str, Mapping[str, Any]]:
    """Of a tower inside the checkpoint there is no file: then it is OpenAI's processor, at the tower's size."""
    if checkpoint.tower is None and not (checkpoint.root / FILES[0]).is_file():
        side = tiling.image_size
        return FILES[0], {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    name, given = _found(checkpoint.tower or checkpoint)
    processor = str(given.get("image_processor_type") or given.get("feature_extractor_type"))
    if processor.removesuffix("Fast").removesuffix("Pil") in CLIP_PROCESSORS:  # LLaVA-1.6 cuts its tiles with it too
        given = {key: given[key] for key in given if key not in ("image_processor_type", "feature_extractor_type")}
    return name, given
