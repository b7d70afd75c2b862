"""What is in a scene: cards with a colour, a code and perhaps a marker, where each of them lies, and what distracts.

A scene is a function of its seed, number and variant alone. Lengths are in pixels of the picture, which is drawn at
twice the size that the model's tiles see (`SCALE`): people look at it too. Nothing is drawn here.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from demo.scenes.box import Box
from demo.scenes.fonts import HELD_OUT, TRAINED, Font

SCALE = 2  # picture pixels per tile pixel
TILE = 112 * SCALE

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
MARKERS = ("star", "circle", "triangle", "square")
DIGITS = "0123456789"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

# (rows, columns) of tiles, how often, and how many cards.
GRIDS = (
    ((2, 2), 60, (3, 6)),
    ((1, 2), 13, (2, 3)),
    ((2, 1), 13, (2, 3)),
    ((1, 3), 7, (2, 4)),
    ((3, 1), 7, (2, 4)),
)


@dataclass(frozen=True)
class Card:
    """A coloured card.

    Args:
        colour: one of COLOURS, no other card of the scene has it.
        code: digits, or digits and letters.
        marker: one of MARKERS, or None.
        box: the card.
        glyphs: the ink of each character of the code.
        marker_box: of the marker; None without one.
        font, size: of the code; the size is what Pillow calls so.
    """

    colour: str
    code: str
    marker: str | None
    box: Box
    glyphs: tuple[Box, ...]
    marker_box: Box | None
    font: Font
    size: int


@dataclass(frozen=True)
class Variant:
    """What kind of codes a scene has: the model is trained on the default alone.

    Args:
        alphabet: characters of a code.
        lengths: how many there may be.
        fonts: which are used.
    """

    alphabet: str = DIGITS
    lengths: tuple[int, ...] = (2, 3)
    fonts: tuple[Font, ...] = TRAINED


VARIANTS = {
    "trained": Variant(),
    "held-out-fonts": Variant(fonts=HELD_OUT),
    "long": Variant(lengths=(4,)),
    "letters": Variant(alphabet=DIGITS + LETTERS),
}


@dataclass(frozen=True)
class Scene:
    """A picture to be drawn: `seed` and `number` give the noise, the background and the distractors."""

    seed: int
    number: int
    width: int
    height: int
    cards: tuple[Card, ...]
    balls: tuple[tuple[str, Box], ...]


def compose(seed: int, number: int, variant: Variant = VARIANTS["trained"]) -> Scene:
    """Scene `number` of the endless series `seed`, as the variant has it."""
    # Seeded by a string: Python hashes it the same way everywhere.
    rng = random.Random(f"scene {seed} {number}")
    (rows, columns), _, count = rng.choices(GRIDS, [weight for _, weight, _ in GRIDS])[0]
    width, height = columns * TILE, rows * TILE
    if rng.random() < 0.5:  # fill one side of the tiles only, the other is padded
        if rng.random() < 0.5:
            width = round(width * rng.uniform(0.8, 1))
        else:
            height = round(height * rng.uniform(0.8, 1))
    colours = rng.sample(COLOURS, rng.randint(*count))
    cards: list[Card] = []
    for colour in colours:
        sketch = _sketch(rng, colour, variant)
        place = _free_place(rng, sketch.box, width, height, [card.box for card in cards])
        if place is not None:  # a full picture takes fewer cards
            cards.append(_moved(sketch, *place))
    balls = []
    for _ in range(rng.choice((0, 0, 1, 2))):
        side = rng.uniform(10, 18) * SCALE
        taken = [card.box for card in cards] + [box for _, box in balls]
        place = _free_place(rng, Box(0, 0, side, side), width, height, taken)
        if place is not None:
            balls.append((rng.choice(COLOURS), Box(0, 0, side, side).moved(*place)))
    return Scene(seed, number, width, height, tuple(cards), tuple(balls))


def _sketch(rng: random.Random, colour: str, variant: Variant) -> Card:
    """A card with its left top corner at (0, 0)."""
    font = rng.choice(variant.fonts)
    code = "".join(rng.choice(variant.alphabet) for _ in range(rng.choice(variant.lengths)))
    height = rng.uniform(11, 14) * SCALE  # of a digit: half as high in the base picture of a 2x2 grid
    size = font.size_of(height)
    spacing = rng.uniform(0.5, 2.0) * SCALE
    glyphs, width = font.glyphs(code, size, spacing)
    marker = rng.choice((None, None, *MARKERS))
    side = 0 if marker is None else rng.uniform(11, 14) * SCALE
    gap = 0 if marker is None else rng.uniform(3, 6) * SCALE
    pad = [rng.uniform(4, 9) * SCALE for _ in range(4)]
    beside, first = rng.random() < 0.5, rng.random() < 0.5
    ink = Box(min(g.left for g in glyphs), min(g.top for g in glyphs), width, max(g.bottom for g in glyphs))
    text_height = ink.bottom - ink.top
    if beside:
        inner = (width + gap + side, max(text_height, side))
        text = ((gap + side) if first else 0, (inner[1] - text_height) / 2)
        spot = (0 if first else width + gap, (inner[1] - side) / 2)
    else:
        inner = (max(width, side), text_height + gap + side)
        text = ((inner[0] - width) / 2, (gap + side) if first else 0)
        spot = ((inner[0] - side) * rng.random(), 0 if first else text_height + gap)
    dx, dy = pad[0] + text[0], pad[1] + text[1] - ink.top
    return Card(
        colour=colour,
        code=code,
        marker=marker,
        box=Box(0, 0, inner[0] + pad[0] + pad[2], inner[1] + pad[1] + pad[3]),
        glyphs=tuple(glyph.moved(dx, dy) for glyph in glyphs),
        marker_box=None if marker is None else Box(0, 0, side, side).moved(pad[0] + spot[0], pad[1] + spot[1]),
        font=font,
        size=size,
    )


def _free_place(rng: random.Random, box: Box, width: int, height: int, taken: list[Box]) -> tuple[int, int] | None:
    """Where `box` touches nothing, or None after 40 trials."""
    margin = 3 * SCALE
    for _ in range(40):
        x = rng.uniform(margin, max(margin, width - box.right - margin))
        y = rng.uniform(margin, max(margin, height - box.bottom - margin))
        here = Box(x, y, x + box.right, y + box.bottom)
        inside = here.right <= width - margin and here.bottom <= height - margin
        if inside and not any(here.grown(2 * SCALE).touches(other) for other in taken):
            return int(x), int(y)
    return None


def _moved(card: Card, dx: float, dy: float) -> Card:
    return replace(
        card,
        box=card.box.moved(dx, dy),
        glyphs=tuple(glyph.moved(dx, dy) for glyph in card.glyphs),
        marker_box=None if card.marker_box is None else card.marker_box.moved(dx, dy),
    )
