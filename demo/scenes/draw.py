"""Scene -> picture: background, distractors, cards, noise. Everything that is not in the scene comes from its seed."""

from __future__ import annotations

import io
import math
import random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from demo.scenes.box import Box
from demo.scenes.compose import SCALE, Card, Scene

RGB = tuple[int, int, int]

_FILL: dict[str, RGB] = {
    "red": (200, 40, 40),
    "orange": (240, 140, 30),
    "yellow": (245, 220, 60),
    "green": (45, 150, 65),
    "blue": (45, 85, 200),
    "purple": (135, 55, 160),
    "white": (240, 240, 240),
    "black": (28, 28, 28),
}
_DARK_INK = ("orange", "yellow", "white")


def draw(scene: Scene) -> Image.Image:
    """The picture, RGB."""
    rng = random.Random(f"picture {scene.seed} {scene.number}")
    picture = _background(rng, scene.width, scene.height)
    canvas = ImageDraw.Draw(picture)
    for _ in range(rng.randint(4, 14)):
        _distract(rng, canvas, scene.width, scene.height)
    if rng.random() < 0.5:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 2) * SCALE / 2))
        canvas = ImageDraw.Draw(picture)
    for colour, box in scene.balls:
        canvas.ellipse(_corners(box), fill=_shade(rng, _FILL[colour], 12))
    for card in scene.cards:
        _draw_card(rng, canvas, card)
    return _noisy(rng, picture)


def encode(scene: Scene) -> bytes:
    """The picture as a JPEG file, of a quality that comes from the scene's seed."""
    file = io.BytesIO()
    quality = random.Random(f"quality {scene.seed} {scene.number}").randint(60, 92)
    draw(scene).save(file, "JPEG", quality=quality)
    return file.getvalue()


def _background(rng: random.Random, width: int, height: int) -> Image.Image:
    """A gradient between two muted colours."""
    first, last = (_muted(rng) for _ in range(2))
    angle = rng.uniform(0, 2 * math.pi)
    x, y = np.linspace(-0.5, 0.5, width), np.linspace(-0.5, 0.5, height)
    ramp = np.clip(x[None] * math.cos(angle) + y[:, None] * math.sin(angle) + 0.5, 0, 1)[..., None]
    return Image.fromarray((np.array(first) * (1 - ramp) + np.array(last) * ramp).astype(np.uint8))


def _muted(rng: random.Random) -> RGB:
    """Greyish, of medium brightness: no card's colour."""
    grey = rng.randint(95, 185)
    return _shade(rng, (grey, grey, grey), 22)


def _shade(rng: random.Random, colour: RGB, by: int) -> RGB:
    red, green, blue = (min(255, max(0, channel + rng.randint(-by, by))) for channel in colour)
    return red, green, blue


def _distract(rng: random.Random, canvas: ImageDraw.ImageDraw, width: int, height: int) -> None:
    """A muted shape that means nothing: an ellipse, a box, a line, a scribble."""
    x, y, colour = rng.uniform(0, width), rng.uniform(0, height), _muted(rng)
    w, h = rng.uniform(8, 60) * SCALE, rng.uniform(8, 60) * SCALE
    kind = rng.randrange(4)
    if kind == 0:
        canvas.ellipse((x, y, x + w, y + h), fill=colour)
    elif kind == 1:
        canvas.rectangle((x, y, x + w, y + h), fill=colour, outline=_muted(rng))
    elif kind == 2:
        canvas.line((x, y, x + rng.uniform(-1, 1) * w, y + h), fill=colour, width=rng.randint(1, 4) * SCALE // 2)
    else:
        points = [(x + step * 4 * SCALE, y + rng.uniform(-6, 6) * SCALE) for step in range(rng.randint(3, 10))]
        canvas.line(points, fill=colour, width=SCALE, joint="curve")


def _draw_card(rng: random.Random, canvas: ImageDraw.ImageDraw, card: Card) -> None:
    fill = _shade(rng, _FILL[card.colour], 12)
    ink = _shade(rng, (35, 35, 35) if card.colour in _DARK_INK else (235, 235, 235), 20)
    outline = ink if rng.random() < 0.2 else None
    canvas.rounded_rectangle(_corners(card.box), radius=rng.uniform(0, 5) * SCALE, fill=fill, outline=outline)
    font = card.font.load(card.size)
    for character, box in zip(card.code, card.glyphs, strict=True):
        left, top, _, _ = font.getbbox(character, anchor="ls")
        canvas.text((box.left - left, box.top - top), character, fill=ink, font=font, anchor="ls")
    if card.marker is not None and card.marker_box is not None:
        _draw_marker(canvas, card.marker, card.marker_box, ink)


def _draw_marker(canvas: ImageDraw.ImageDraw, marker: str, box: Box, ink: RGB) -> None:
    if marker == "circle":
        canvas.ellipse(_corners(box), fill=ink)
    elif marker == "square":
        canvas.rectangle(_corners(box.grown(-SCALE)), fill=ink)
    elif marker == "triangle":
        canvas.polygon(
            [((box.left + box.right) / 2, box.top), (box.right, box.bottom), (box.left, box.bottom)], fill=ink
        )
    else:
        (x, y), radius = box.centre, (box.right - box.left) / 2 * 1.1
        turns = [(math.pi * step / 5, radius if step % 2 == 0 else radius * 0.45) for step in range(10)]
        canvas.polygon([(x + r * math.sin(turn), y - r * math.cos(turn)) for turn, r in turns], fill=ink)


def _corners(box: Box) -> tuple[float, float, float, float]:
    return box.left, box.top, box.right, box.bottom


def _noisy(rng: random.Random, picture: Image.Image) -> Image.Image:
    deviation = rng.uniform(0, 12)
    noise = np.random.default_rng(rng.randrange(2**32)).normal(0, deviation, (picture.height, picture.width, 1))
    return Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))
