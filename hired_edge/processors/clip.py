"""CLIP's picture processor and LLaVA's two, whose files have the same keys (preprocessor_config.json of 4 and of 5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hired_edge.preprocessing import BICUBIC, PreprocessRules, pad_to_square, refused
from hired_edge.processors.values import channels, check_processor, check_steps, filled, number, side, square

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
_STEPS = {"do_resize": True, "do_rescale": True, "do_normalize": True}
_SINGLE = ("CLIPImageProcessor", "CLIPFeatureExtractor", "LlavaImageProcessor")
# The one of them that knows `do_pad` as padding to a square.
_PADS = "LlavaImageProcessor"


def read_single(given: Mapping[str, Any]) -> PreprocessRules:
    """One picture, its centre cut out or padded to a square (LLaVA-1.5)."""
    plain = check_processor(given, _SINGLE)
    config = filled(given, _DEFAULTS)
    check_steps(config, _STEPS if plain == _PADS else {**_STEPS, "do_pad": False})
    rules = _rules(config, *_sizes(config, centre=True))
    return pad_to_square(rules) if config["do_pad"] else rules


def read_anyres(given: Mapping[str, Any]) -> PreprocessRules:
    """Whole picture and tiles (LLaVA-NeXT). `do_pad` is of a batch there, which gets empty tiles."""
    check_processor(given, ("LlavaNextImageProcessor",))
    config = filled(given, _DEFAULTS)
    check_steps(config, _STEPS)
    return _rules(config, *_sizes(config, centre=False))


def _rules(config: Mapping[str, Any], image_size: int, shortest_edge: int | None) -> PreprocessRules:
    if not isinstance(config["do_pad"], bool):
        raise refused("do_pad", config["do_pad"], "true or false")
    return PreprocessRules(
        image_size=image_size,
        shortest_edge=shortest_edge,
        resample=config["resample"],
        rescale_factor=number("rescale_factor", config["rescale_factor"]),
        image_mean=channels("image_mean", config["image_mean"]),
        image_std=channels("image_std", config["image_std"]),
    )


def _sizes(config: Mapping[str, Any], *, centre: bool) -> tuple[int, int | None]:
    """-> (side of a tile, shortest edge or None). `centre`: whether a shortest edge means to cut out the centre."""
    resized, is_edge = _resize_target(config["size"])
    cuts_centre = is_edge and centre
    if cuts_centre and not config["do_center_crop"]:
        raise refused("do_center_crop", config["do_center_crop"], "true, since size is a shortest_edge")
    tile = square("crop_size", config["crop_size"]) if config["do_center_crop"] else resized
    if cuts_centre:
        return tile, resized
    if resized != tile:
        raise refused("size", config["size"], f"{tile}, as crop_size")
    return tile, None


def _resize_target(size: Any) -> tuple[int, bool]:
    """-> (pixels, whether of the shortest edge alone); an integer means that, as in `transformers`."""
    if not isinstance(size, Mapping):
        return side("size", size), True
    given = {key for key, value in size.items() if value is not None}
    if given == {"shortest_edge"}:
        return side("size.shortest_edge", size["shortest_edge"]), True
    if given == {"height", "width"}:
        return square("size", size), False
    raise refused("size", size, "an integer, a shortest_edge, or height and width")
