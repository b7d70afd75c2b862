"""The fonts of the codes: digits and capitals of free typefaces; `fonts/README.md` says which, on what terms."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import ImageFont

from demo.scenes.box import Box

FOLDER = Path(__file__).parent / "fonts"
_BIG = 200


@cache
def _load(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(FOLDER / f"{name}.ttf"), size, layout_engine=ImageFont.Layout.BASIC)


@dataclass(frozen=True)
class Font:
    """A typeface by the name of its file."""

    name: str

    def load(self, size: int) -> ImageFont.FreeTypeFont:
        return _load(self.name, size)

    def size_of(self, height: float) -> int:
        """The size at which a digit is `height` px high."""
        _, top, _, bottom = self.load(_BIG).getbbox("8", anchor="ls")
        return max(1, round(_BIG * height / (bottom - top)))

    def glyphs(self, text: str, size: int, spacing: float) -> tuple[list[Box], float]:
        """The ink of each character on a baseline at y = 0 that starts at x = 0, and the width of all, px."""
        font, x, boxes = self.load(size), 0.0, []
        for character in text:
            left, top, right, bottom = font.getbbox(character, anchor="ls")
            boxes.append(Box(x + left, top, x + right, bottom))
            x += font.getlength(character) + spacing
        return boxes, x - spacing


TRAINED = tuple(map(Font, ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "OpenSans-Semibold", "Roboto-Medium")))
HELD_OUT = tuple(map(Font, ("DejaVuSerif-Bold", "RobotoCondensed-Bold")))
