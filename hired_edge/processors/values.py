"""Values of a preprocessor_config.json, read strictly; and the steps that every supported processor takes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from hired_edge.preprocessing import refused


def filled(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of `defaults`, from the file unless it leaves them out or has null."""
    return {key: given[key] if given.get(key) is not None else default for key, default in defaults.items()}


def check_processor(given: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """The processor's name without its backend's ending.

    Raises:
        CheckpointError: it is none of `names`.
    """
    name = given.get("image_processor_type") or given.get("feature_extractor_type") or names[0]
    plain = str(name).removesuffix("Fast").removesuffix("Pil")
    if plain not in names:
        raise refused("image_processor_type", name, " or ".join(names))
    return plain


def check_steps(config: Mapping[str, Any], steps: Mapping[str, bool]) -> None:
    """Raises CheckpointError for a step that is not as it is reproduced."""
    for step, reproduced in steps.items():
        if config[step] is not reproduced:
            raise refused(step, config[step], str(reproduced).lower())


def square(key: str, size: Any) -> int:
    """The side of {"height": px, "width": px}, or a number of px."""
    if not isinstance(size, Mapping):
        return side(key, size)
    if size.get("height") != size.get("width"):
        raise refused(key, size, "equal height and width")
    return side(key, size.get("height"))


def side(key: str, value: Any) -> int:
    """A positive whole number."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise refused(key, value, "a positive integer")
    return value


def channels(key: str, values: Any) -> tuple[float, float, float]:
    """Three numbers, of red, green and blue."""
    if not isinstance(values, (list, tuple)) or len(values) != 3:
        raise refused(key, values, "three numbers")
    red, green, blue = (number(key, value) for value in values)
    return red, green, blue


def number(key: str, value: Any) -> float:
    """A finite number that a double can hold."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
        return float(value)
    raise refused(key, value, "a finite number")
