"""GOT-OCR-2's picture processor, which InternVL uses: tiles of a square, as many as the picture's aspect asks for.

`crop_to_patches` in the file is not looked at: InternVL's processor turns it on whatever the file says, and the
published files say false.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hired_edge.preprocessing import BICUBIC, PreprocessRules, refused
from hired_edge.processors.values import channels, check_processor, check_steps, filled, number, side, square

MOST_TILES = 64
"""Of one picture, so that the grids to choose from stay a short list. InternVL's own files say 12."""

# What the processor's class assumes where a key is missing or null.
_DEFAULTS: dict[str, Any] = {
    "size": {"height": 384, "width": 384},
    "resample": BICUBIC,
    "rescale_factor": 1 / 255,
    "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711),
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "min_patches": 1,
    "max_patches": 12,
}


def read(given: Mapping[str, Any]) -> PreprocessRules:
    """Stretched to the grid's size, or to one tile."""
    check_processor(given, ("GotOcr2ImageProcessor",))
    config = filled(given, _DEFAULTS)
    check_steps(config, {"do_resize": True, "do_rescale": True, "do_normalize": True})
    if isinstance(config["size"], Mapping) and {key for key, px in config["size"].items() if px} != {"height", "width"}:
        raise refused("size", config["size"], "height and width")
    return PreprocessRules(
        image_size=square("size", config["size"]),
        shortest_edge=None,
        resample=config["resample"],
        rescale_factor=number("rescale_factor", config["rescale_factor"]),
        image_mean=channels("image_mean", config["image_mean"]),
        image_std=channels("image_std", config["image_std"]),
    )


def tile_counts(given: Mapping[str, Any]) -> tuple[int, int]:
    """The fewest and the most tiles of a picture, the base picture not counted.

    Raises:
        CheckpointError: no whole numbers, none that lie between them, or more than `MOST_TILES`.
    """
    config = filled(given, _DEFAULTS)
    fewest, most = side("min_patches", config["min_patches"]), side("max_patches", config["max_patches"])
    if most > MOST_TILES:
        raise refused("max_patches", most, f"at most {MOST_TILES}")
    if fewest > most:
        raise refused("min_patches", fewest, f"at most max_patches, {most}")
    return (1, 1) if most == 1 else (fewest, most)
