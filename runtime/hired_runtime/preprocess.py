"""A picture and its tiling -> `pixel_values`, equal to the last bit to the PIL-backed processors of `transformers`.

Those are `LlavaNextImageProcessorPil` (anyres), `GotOcr2ImageProcessorPil` (dynamic) and `CLIPImageProcessorPil` or
`LlavaImageProcessorPil` (single; padded to a square as the original LLaVA-1.5's `expand2square` does, where the rules
say so). Equal means with the same Pillow:
version 13 resizes pictures that lose height in another order than 12, and rounds otherwise. Everything stays in
bytes until the end, where one look-up normalises all tiles.

Knows nothing of files, models or budgets.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hired_edge.preprocessing import PreprocessRules
from hired_edge.tiling import Tiling

Bytes: TypeAlias = NDArray[np.uint8]

# An enlarged picture of more pixels is not made whole just to cut out its centre: 336 px high, 3000x1 is 339 million.
_LARGE_PIXELS = 1 << 23
# Nor is a padded square of more: 65535x1 would be padded to 4.3 thousand million pixels.
_LARGE_SQUARE = 1 << 25
_BAND_ROWS = 1024


def pixel_values(picture: Image.Image, tiling: Tiling, rules: PreprocessRules) -> NDArray[np.float32]:
    """The vision tower's input.

    Args:
        picture: RGB, upright (`load_picture`), of the size that `tiling` was made for.
        tiling: where the tiles lie.
        rules: resizing and normalisation.

    Returns:
        (T, 3, h, w), the base picture first, then the tiles in row-major order.
    """
    assert picture.mode == "RGB", picture.mode
    assert picture.size == (tiling.width, tiling.height), (picture.size, tiling)
    assert rules.image_size == tiling.rules.image_size, (rules, tiling.rules)
    return _normalise(np.concatenate([base_tile(picture, rules)[None], _mosaic_tiles(picture, tiling, rules)]), rules)


def base_tile(picture: Image.Image, rules: PreprocessRules) -> Bytes:
    """What the base partition sees of the whole picture, (image_size, image_size, 3)."""
    side = rules.image_size
    if rules.pad_colour is not None:
        return _padded_tile(picture, rules.pad_colour, rules)
    if rules.shortest_edge is None:
        return _resize(picture, (side, side), rules)
    height, width = _edge_size(picture.height, picture.width, rules.shortest_edge)
    top, left = (height - side) // 2, (width - side) // 2
    if height * width > max(_LARGE_PIXELS, picture.height * picture.width):
        return _enlarged_window(np.asarray(picture), (height, width), (top, left), side)
    return _resize(picture, (height, width), rules)[top : top + side, left : left + side]


def mosaic(picture: Image.Image, tiling: Tiling, rules: PreprocessRules) -> Bytes:
    """The canvas that the tiles are cut from, padded with zeros, (canvas height, canvas width, 3)."""
    canvas = np.zeros((*tiling.canvas, 3), np.uint8)
    if canvas.size:
        (height, width), (top, _, left, _) = tiling.resized, tiling.padding
        canvas[top : top + height, left : left + width] = _resize(picture, tiling.resized, rules)
    return canvas


def _padded_tile(picture: Image.Image, colour: tuple[int, int, int], rules: PreprocessRules) -> Bytes:
    """The picture in the middle of a square of one colour (`expand2square`), resized, and its centre cut out.

    Of a square too large to be made whole, the picture's rows are narrowed first and lowered then: Pillow's own order
    up to version 12, so the bytes are the same there.
    """
    long, edge = max(picture.size), rules.shortest_edge or rules.image_size
    left, top = (long - picture.width) // 2, (long - picture.height) // 2
    if long * long <= _LARGE_SQUARE:
        square = Image.new("RGB", (long, long), colour)
        square.paste(picture, (left, top))
    else:
        narrow = np.full((long, edge, 3), colour, np.uint8)
        inside = narrow[top : top + picture.height]
        if left:
            _narrow_padded(np.asarray(picture), long, left, inside)
        else:
            inside[:] = _resize(picture, (picture.height, edge), rules)
        square = Image.fromarray(narrow)
    inset = (edge - rules.image_size) // 2
    window = slice(inset, inset + rules.image_size)
    return _resize(square, (edge, edge), rules)[window, window]


def _narrow_padded(pixels: Bytes, width: int, left: int, narrow: Bytes) -> None:
    """Narrows rows that are one colour but for `pixels`, as Pillow would: its integers, where they are not constant.

    Args:
        pixels: (h, w, 3).
        width: of the whole rows, px, of which `left` lie before the pixels.
        narrow: (h, columns, 3) filled with the colour; the columns that see the pixels are written.
    """
    colour, end = narrow[0, 0].astype(np.int64), left + pixels.shape[1]
    taps, weights = _bicubic_taps(width, narrow.shape[1], 0, narrow.shape[1])
    for column, (places, shares) in enumerate(zip(taps.T, weights.T, strict=True)):
        seen = (left <= places) & (places < end)
        if seen.any():
            part = slice(places[seen].min() - left, places[seen].max() - left + 1)
            inside = np.bincount(places[seen] - left - part.start, weights=shares[seen])
            rest = (1 << 21) + colour * shares[~seen].sum()
            for start in range(0, len(pixels), _BAND_ROWS):
                rows = slice(start, start + _BAND_ROWS)
                # Whole numbers below 2^53, so float64 is exact, and its products are fast.
                total = rest + np.einsum("htc,t->hc", pixels[rows, part].astype(np.float64), inside)
                narrow[rows, column] = np.clip(total.astype(np.int64) >> 22, 0, 255)


def _mosaic_tiles(picture: Image.Image, tiling: Tiling, rules: PreprocessRules) -> Bytes:
    """-> (T-1, image_size, image_size, 3), row-major."""
    (rows, columns), side = tiling.grid, rules.image_size
    canvas = mosaic(picture, tiling, rules).reshape(rows, side, columns, side, 3)
    return canvas.transpose(0, 2, 1, 3, 4).reshape(rows * columns, side, side, 3)


def _normalise(tiles: Bytes, rules: PreprocessRules) -> NDArray[np.float32]:
    """(T, h, w, 3) bytes -> (T, 3, h, w): (byte * rescale_factor - mean) / std.

    A byte has 256 values, so each is normalised once and looked up. Precision as in the reference: the product in
    float64, rounded to float32, then subtraction and division in float32.
    """
    rescaled = (np.arange(256, dtype=np.float64) * rules.rescale_factor).astype(np.float32)
    mean, std = np.array(rules.image_mean, np.float32), np.array(rules.image_std, np.float32)
    table = (rescaled - mean[:, None]) / std[:, None]
    values = np.empty((len(tiles), 3, *tiles.shape[1:3]), np.float32)
    for channel in range(3):
        values[:, channel] = table[channel][tiles[..., channel]]
    return values


def _edge_size(height: int, width: int, edge: int) -> tuple[int, int]:
    """(height, width) after the shorter side was resized to `edge`; the longer one is rounded down."""
    if width <= height:
        return int(edge * height / width), edge
    return edge, int(edge * width / height)


def _resize(picture: Image.Image, size: tuple[int, int], rules: PreprocessRules) -> Bytes:
    height, width = size
    return np.asarray(picture.resize((width, height), Image.Resampling(rules.resample)))


def _enlarged_window(pixels: Bytes, size: tuple[int, int], corner: tuple[int, int], side: int) -> Bytes:
    """A square cut out of `picture.resize(size, BICUBIC)`, without the rest of it.

    Every version of Pillow enlarges along the rows first, then along the columns, and rounds to bytes in between.

    Args:
        pixels: (h, w, 3).
        size: (height, width) px of the whole resized picture, nowhere smaller than `pixels`.
        corner: (top, left) px of the square in it.
        side: of the square, px.
    """
    row_taps, row_weights = _bicubic_taps(pixels.shape[0], size[0], corner[0], side)
    column_taps, column_weights = _bicubic_taps(pixels.shape[1], size[1], corner[1], side)
    rows = slice(row_taps.min(), row_taps.max() + 1)
    across = _apply_taps(pixels[rows].swapaxes(0, 1), column_taps, column_weights).swapaxes(0, 1)
    return _apply_taps(across, row_taps - rows.start, row_weights)


def _bicubic_taps(source: int, resized: int, start: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pillow's taps and weights for pixels start .. start + count of `source` px resized to `resized` px.

    Returns:
        Source pixels and their weights (fixed point, 22 fractional bits), (taps, count) each.
    """
    scale = source / resized
    centre = (np.arange(start, start + count) + 0.5) * scale
    spread = max(scale, 1.0)  # fewer pixels than before are means of more
    first = np.maximum((centre - 2.0 * spread + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + 2.0 * spread + 0.5).astype(np.int64), source)
    taps = first + np.arange((last - first).max())[:, None]
    weights = np.where(taps < last, _bicubic((taps - centre + 0.5) * (1.0 / spread)), 0.0)
    weights /= weights.sum(axis=0)
    # Halves away from zero, as Pillow rounds; rint would round them to even.
    fixed = np.trunc(weights * (1 << 22) + np.copysign(0.5, weights)).astype(np.int64)
    return np.minimum(taps, source - 1), fixed


def _apply_taps(pixels: Bytes, taps: NDArray[np.int64], weights: NDArray[np.int64]) -> Bytes:
    """The weighted sums along axis 0, rounded to bytes."""
    total = np.full((taps.shape[1], *pixels.shape[1:]), 1 << 21, np.int64)
    for tap, weight in zip(taps, weights, strict=True):
        total += weight[:, None, None] * pixels[tap]
    return np.clip(total >> 22, 0, 255).astype(np.uint8)


def _bicubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = -0.5."""
    x, a = np.abs(x), -0.5
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
