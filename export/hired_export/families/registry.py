"""Every family, by its `model_type`. A new one is its own file and a line here (docs/adding-a-family.md)."""

from __future__ import annotations

from hired_export.families.family import Family
from hired_export.families.internvl import InternVL
from hired_export.families.llava import Llava, LlavaNext

FAMILIES: dict[str, Family] = {"llava": Llava(), "llava_next": LlavaNext(), "internvl": InternVL()}
