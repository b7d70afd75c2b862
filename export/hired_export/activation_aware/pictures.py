"""A calibration picture -> its kept features and their places in the sequence, by the reference tower in float32.

Pictures are prepared by transformers' own processors, which the runtime's preparation equals.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from transformers.image_utils import load_image

from hired_edge.errors import InputError
from hired_edge.preprocessing import PreprocessRules
from hired_edge.selection import select
from hired_edge.tiling import TilingRules, tile
from hired_export.references import References

Floats = NDArray[np.float32]


def kept_features(
    path: Path, references: References, tiling: TilingRules, rules: PreprocessRules, newline: Floats | None, budget: str
) -> Floats:
    """What the picture puts into the language model's sequence, (visual tokens, D).

    Raises:
        InputError: the picture cannot be read.
    """
    picture = _load(path)
    cut = tile(picture.height, picture.width, tiling)
    found = references.vision(references.spec.facts.pixels(picture, tiling, rules))[
        :3
    ]  # keys, if there are any, choose nothing here
    features, allocation, selection = (each.numpy() for each in found)
    (chosen,) = select([cut], [allocation], [selection], budget)
    kept = features.reshape(-1, features.shape[-1])[chosen.gather]
    if newline is not None:
        kept[chosen.gather < 0] = newline
    return kept


def _load(path: Path) -> Image.Image:
    try:
        return load_image(str(path))
    except Exception as error:  # Pillow raises whatever a damaged file leads to
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{path} cannot be read as a picture ({reason})",
            expected="a picture file",
            fix="mend the calibration data",
        ) from None
