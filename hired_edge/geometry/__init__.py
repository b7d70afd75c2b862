"""Ways of cutting pictures, by the name that a manifest has for them; a new one is its own file and a line here."""

from hired_edge.geometry.anyres import ANYRES
from hired_edge.geometry.dynamic import DYNAMIC
from hired_edge.geometry.kind import NEWLINE, Kind, Tile
from hired_edge.geometry.single import SINGLE

KINDS: dict[str, Kind] = {"single": SINGLE, "anyres": ANYRES, "dynamic": DYNAMIC}

__all__ = ["KINDS", "NEWLINE", "Kind", "Tile"]
