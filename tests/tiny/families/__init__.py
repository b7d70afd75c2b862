"""Tiny checkpoints' families, a file each and a line here."""

from tests.tiny.families.family import TOWER, TinyFamily
from tests.tiny.families.internvl import INTERNVL
from tests.tiny.families.llava import LLAVA, LLAVA_NEXT

FAMILIES: dict[str, TinyFamily] = {"llava": LLAVA, "llava_next": LLAVA_NEXT, "internvl": INTERNVL}

__all__ = ["FAMILIES", "TOWER", "TinyFamily"]
