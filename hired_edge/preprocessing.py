"""The rules that turn a picture into `pixel_values`.

They travel in a bundle's manifest, so every field is plain JSON. How a checkpoint's preprocessor_config.json says them
is `hired_edge.processors`' business, what is done with them the runtime's (`hired_runtime.preprocess`); where the tiles
lie is `hired_edge.tiling`'s.

LLaVA-1.5 and ShareGPT4V were trained on pictures padded to a square in the mean colour (`image_aspect_ratio: pad`; in
the Hub's layout `do_pad`). Those patches are patches like any other: the paper has one partition of 576 tokens, so all
of them are eligible.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hired_edge.errors import CheckpointError
from hired_edge.strict import optional

#: PIL's number for bicubic resampling, the only one that the supported families use.
BICUBIC = 3


@dataclass(frozen=True)
class PreprocessRules:
    """How a picture becomes (T, 3, image_size, image_size) float32.

    Args:
        image_size: side of every tile, px.
        shortest_edge: the whole picture's shorter side is resized to this many px, then the centre is cut out
            (LLaVA-1.5); None: the whole picture is squashed to the tile (LLaVA-NeXT, InternVL).
        resample: PIL's number of the resampling filter: `BICUBIC`.
        rescale_factor: multiplies the bytes, before the normalisation.
        image_mean, image_std: of each channel (red, green, blue), after rescaling.
        pad_colour: the picture is first padded to a square, centred, with this red, green and blue (bytes); None: not.

    Raises:
        CheckpointError: a value that no picture could be processed with.
    """

    image_size: int
    shortest_edge: int | None
    resample: int
    rescale_factor: float
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    pad_colour: tuple[int, int, int] | None = optional(None)

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise refused("crop_size", self.image_size, "at least 1")
        if self.shortest_edge is not None and self.shortest_edge < self.image_size:
            raise refused("size.shortest_edge", self.shortest_edge, f"at least the crop_size, {self.image_size}")
        if self.resample != BICUBIC:
            raise refused("resample", self.resample, f"{BICUBIC} (bicubic)")
        if not self.rescale_factor > 0:
            raise refused("rescale_factor", self.rescale_factor, "a positive number")
        if not min(self.image_std) > 0:
            raise refused("image_std", self.image_std, "three positive numbers")
        if self.pad_colour is not None and not 0 <= min(self.pad_colour) <= max(self.pad_colour) <= 255:
            raise refused("pad_colour", self.pad_colour, "three numbers from 0 to 255")

    @property
    def mean_colour(self) -> tuple[int, int, int]:
        """The mean as bytes, cut off as `expand2square`'s callers do (haotian-liu/LLaVA, llava/mm_utils.py)."""
        red, green, blue = (int(mean * 255) for mean in self.image_mean)
        return red, green, blue


def pad_to_square(rules: PreprocessRules) -> PreprocessRules:
    """The same rules for pictures that are first padded to a square in the mean colour.

    Raises:
        CheckpointError: a mean that is no colour.
    """
    if not 0 <= min(rules.image_mean) <= max(rules.image_mean) <= 1:
        raise refused("image_mean", rules.image_mean, "three numbers from 0 to 1, since pictures are padded with it")
    return replace(rules, pad_colour=rules.mean_colour)


def refused(key: str, value: Any, expected: str) -> CheckpointError:
    """The error about a key of preprocessor_config.json."""
    shown = repr(value) if len(repr(value)) <= 80 else repr(value)[:77] + "..."
    return CheckpointError(
        f"preprocessor_config.json says {key} = {shown}",
        expected=expected,
        fix="use a checkpoint of a supported architecture",
    )
