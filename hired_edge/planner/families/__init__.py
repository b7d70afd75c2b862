"""Families that the planner knows, by their `model_type`; a new one is its own file and a line here."""

from hired_edge.planner.families.family import Family
from hired_edge.planner.families.internvl import INTERNVL
from hired_edge.planner.families.llava import LLAVA, LLAVA_NEXT

FAMILIES: dict[str, Family] = {"llava": LLAVA, "llava_next": LLAVA_NEXT, "internvl": INTERNVL}

OTHER_LAYOUTS = {"internvl_chat": "internvl, as the repository of the same name with -hf behind it has it"}
"""Of families that are known in another layout: what to take instead."""


def expected(model_type: str) -> str:
    """What an error about a `model_type` asks for."""
    return OTHER_LAYOUTS.get(model_type, " or ".join(FAMILIES))


__all__ = ["FAMILIES", "Family", "expected"]
