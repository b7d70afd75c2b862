"""A calibration picture -> its kept features and their places in the sequence, by the reference tower in float32.

Pictures are prepared by transformers' own processors, which the runtime's preparation equals.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers.image_utils import load_image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

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
    found = references.vision(_pixels(picture, tiling, rules))[:3]  # keys, if there are any, choose nothing here
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


def _pixels(picture: Image.Image, tiling: TilingRules, rules: PreprocessRules) -> torch.Tensor:
    """(T, 3, h, w)."""
    side = {"height": rules.image_size, "width": rules.image_size}
    size = side if rules.shortest_edge is None else {"shortest_edge": rules.shortest_edge}
    common: dict[str, Any] = {
        "size": size,
        "crop_size": side,
        "rescale_factor": rules.rescale_factor,
        "image_mean": list(rules.image_mean),
        "image_std": list(rules.image_std),
    }
    if tiling.kind == "anyres":
        processor = LlavaNextImageProcessorPil(**common, image_grid_pinpoints=[list(each) for each in tiling.pinpoints])
        return torch.from_numpy(np.asarray(processor(picture, return_tensors="np")["pixel_values"][0]))
    kind = CLIPImageProcessorPil if rules.pad_colour is None else LlavaImageProcessorPil
    padding = {} if rules.pad_colour is None else {"do_pad": True}
    processor = kind(**common, **padding)
    return torch.from_numpy(np.asarray(processor(picture, return_tensors="np")["pixel_values"]))
