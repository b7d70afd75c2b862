"""Families that the planner knows, by their `model_type`; a new one is its own file and a line here."""

from hired_edge.planner.families.family import Family
from hired_edge.planner.families.internvl import INTERNVL
from hired_edge.planner.families.llava import LLAVA, LLAVA_NEXT

FAMILIES: dict[str, Family] = {"llava": LLAVA, "llava_next": LLAVA_NEXT, "internvl": INTERNVL}

__all__ = ["FAMILIES", "Family"]
