"""The rules that turn a picture into `pixel_values`, read from a checkpoint's preprocessor_config.json.

They travel in a bundle's manifest, so every field is plain JSON. What is done with them is the runtime's business
(`hired_runtime.preprocess`); where the tiles lie is `hired_edge.tiling`'s.

LLaVA-1.5 and ShareGPT4V were trained on pictures padded to a square in the mean colour (`image_aspect_ratio: pad`; in
the Hub's layout `do_pad`). Those patches are patches like any other: the paper has one partition of 576 tokens, so all
of them are eligible.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hired_edge.errors import CheckpointError
from hired_edge.strict import optional

#: PIL's number for bicubic resampling, the only one that the LLaVA families use.
BICUBIC = 3

# The image processors of `transformers` whose arithmetic is reproduced, for each kind of tiling.
_PROCESSORS = {
    "single": ("CLIPImageProcessor", "CLIPFeatureExtractor", "LlavaImageProcessor"),
    "anyres": ("LlavaNextImageProcessor",),
}
# The one of them that knows `do_pad` as padding to a square.
_PADS = "LlavaImageProcessor"

# What these processors' classes assume where a key is missing or null.
_DEFAULTS: dict[str, Any] = {
    "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "resample": BICUBIC,
    "rescale_factor": 1 / 255,
    "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711),
    "do_resize": True,
    "do_center_crop": True,
    "do_rescale": True,
    "do_normalize": True,
    "do_pad": False,
}


@dataclass(frozen=True)
class PreprocessRules:
    """How a picture becomes (T, 3, image_size, image_size) float32.

    Args:
        image_size: side of every tile, px.
        shortest_edge: the whole picture's shorter side is resized to this many px, then the centre is cut out
            (LLaVA-1.5); None: the whole picture is squashed to the tile (LLaVA-NeXT).
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
            raise _refused("crop_size", self.image_size, "at least 1")
        if self.shortest_edge is not None and self.shortest_edge < self.image_size:
            raise _refused("size.shortest_edge", self.shortest_edge, f"at least the crop_size, {self.image_size}")
        if self.resample != BICUBIC:
            raise _refused("resample", self.resample, f"{BICUBIC} (bicubic)")
        if not self.rescale_factor > 0:
            raise _refused("rescale_factor", self.rescale_factor, "a positive number")
        if not min(self.image_std) > 0:
            raise _refused("image_std", self.image_std, "three positive numbers")
        if self.pad_colour is not None and not 0 <= min(self.pad_colour) <= max(self.pad_colour) <= 255:
            raise _refused("pad_colour", self.pad_colour, "three numbers from 0 to 255")

    @property
    def mean_colour(self) -> tuple[int, int, int]:
        """The mean as bytes, cut off as `expand2square`'s callers do (haotian-liu/LLaVA, llava/mm_utils.py)."""
        red, green, blue = (int(mean * 255) for mean in self.image_mean)
        return red, green, blue


def preprocess_rules(preprocessor_config: Mapping[str, Any], kind: str) -> PreprocessRules:
    """Read a `transformers` preprocessor_config.json, of version 4 or 5 and with the old integer sizes too.

    Args:
        preprocessor_config: the file's contents; a processor_config.json with an `image_processor` inside is unwrapped.
        kind: the tiling that they are for, "single" or "anyres" (`TilingRules.kind`).

    Raises:
        CheckpointError: a processor, a step or a value that is not reproduced.
    """
    given = preprocessor_config.get("image_processor", preprocessor_config)
    if not isinstance(given, Mapping):
        raise _refused("image_processor", given, "an object")
    config = {key: given[key] if given.get(key) is not None else default for key, default in _DEFAULTS.items()}
    names = _PROCESSORS[kind]
    name = given.get("image_processor_type") or given.get("feature_extractor_type") or names[0]
    plain_name = str(name).removesuffix("Fast").removesuffix("Pil")
    if plain_name not in names:
        raise _refused("image_processor_type", name, " or ".join(names))
    # An "anyres" processor pads too, but only a batch, with empty tiles.
    unpadded = {"do_pad": False} if kind == "single" and plain_name != _PADS else {}
    steps = {"do_resize": True, "do_rescale": True, "do_normalize": True} | unpadded
    for step, reproduced in steps.items():
        if config[step] is not reproduced:
            raise _refused(step, config[step], str(reproduced).lower())
    if not isinstance(config["do_pad"], bool):
        raise _refused("do_pad", config["do_pad"], "true or false")
    image_size, shortest_edge = _sizes(config, kind)
    rules = PreprocessRules(
        image_size=image_size,
        shortest_edge=shortest_edge,
        resample=config["resample"],
        rescale_factor=_number("rescale_factor", config["rescale_factor"]),
        image_mean=_channels("image_mean", config["image_mean"]),
        image_std=_channels("image_std", config["image_std"]),
    )
    return pad_to_square(rules) if kind == "single" and config["do_pad"] else rules


def pad_to_square(rules: PreprocessRules) -> PreprocessRules:
    """The same rules for pictures that are first padded to a square in the mean colour.

    Raises:
        CheckpointError: a mean that is no colour.
    """
    if not 0 <= min(rules.image_mean) <= max(rules.image_mean) <= 1:
        raise _refused("image_mean", rules.image_mean, "three numbers from 0 to 1, since pictures are padded with it")
    return replace(rules, pad_colour=rules.mean_colour)


def _sizes(config: Mapping[str, Any], kind: str) -> tuple[int, int | None]:
    """-> (side of a tile, shortest edge or None)."""
    side, is_edge = _resize_target(config["size"])
    cuts_centre = is_edge and kind == "single"
    if cuts_centre and not config["do_center_crop"]:
        raise _refused("do_center_crop", config["do_center_crop"], "true, since size is a shortest_edge")
    tile = _square("crop_size", config["crop_size"]) if config["do_center_crop"] else side
    if cuts_centre:
        return tile, side
    if side != tile:
        raise _refused("size", config["size"], f"{tile}, as crop_size")
    return tile, None


def _resize_target(size: Any) -> tuple[int, bool]:
    """-> (pixels, whether of the shortest edge alone); an integer means that, as in `transformers`."""
    if not isinstance(size, Mapping):
        return _side("size", size), True
    given = {key for key, value in size.items() if value is not None}
    if given == {"shortest_edge"}:
        return _side("size.shortest_edge", size["shortest_edge"]), True
    if given == {"height", "width"}:
        return _square("size", size), False
    raise _refused("size", size, "an integer, a shortest_edge, or height and width")


def _square(key: str, size: Any) -> int:
    if not isinstance(size, Mapping):
        return _side(key, size)
    if size.get("height") != size.get("width"):
        raise _refused(key, size, "equal height and width")
    return _side(key, size.get("height"))


def _side(key: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _refused(key, value, "a positive integer")
    return value


def _channels(key: str, values: Any) -> tuple[float, float, float]:
    if not isinstance(values, (list, tuple)) or len(values) != 3:
        raise _refused(key, values, "three numbers")
    red, green, blue = (_number(key, value) for value in values)
    return red, green, blue


def _number(key: str, value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise _refused(key, value, "a finite number")
    return float(value)


def _refused(key: str, value: Any, expected: str) -> CheckpointError:
    shown = repr(value) if len(repr(value)) <= 80 else repr(value)[:77] + "..."
    return CheckpointError(
        f"preprocessor_config.json says {key} = {shown}",
        expected=expected,
        fix="use a checkpoint that preprocesses as LLaVA-1.5 or LLaVA-NeXT do",
    )
