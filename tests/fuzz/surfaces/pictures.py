"""A picture file of any format that is read: decoded upright."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from hired_runtime.pictures import load_picture, read_picture
from tests.fuzz.mutators import pictures
from tests.fuzz.surface import Feed, Surface

MOST_PIXELS = 4_000_000


def _drawn(form: str, mode: str = "RGB", size: tuple[int, int] = (24, 17), **options: object) -> bytes:
    file = io.BytesIO()
    picture = Image.linear_gradient("L").resize(size).convert(mode)
    picture.save(file, form, **options)
    return file.getvalue()


def seeds() -> dict[str, bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    forms = {
        "jpeg": ("JPEG", "RGB", {"exif": exif}),
        "jpeg-progressive": ("JPEG", "RGB", {"progressive": True}),
        "jpeg-cmyk": ("JPEG", "CMYK", {}),
        "png": ("PNG", "RGB", {"exif": exif}),
        "png-palette": ("PNG", "P", {"transparency": 0}),
        "png-grey": ("PNG", "I;16", {}),
        "gif": ("GIF", "P", {"comment": b"x"}),
        "bmp": ("BMP", "RGB", {}),
        "ppm": ("PPM", "RGB", {}),
        "webp": ("WEBP", "RGBA", {"exif": exif}),
        "tiff": ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        "tiff-deflate": ("TIFF", "L", {"compression": "tiff_adobe_deflate"}),
        "jpeg2000": ("JPEG2000", "RGB", {}),
        "avif": ("AVIF", "RGB", {}),
    }
    made = {name: _drawn(form, mode, **options) for name, (form, mode, options) in forms.items() if form in _known()}
    frames = [Image.new("RGB", (9, 9), (each, 0, 0)) for each in (0, 90)]
    for form in ("GIF", "PNG", "WEBP", "TIFF"):
        file = io.BytesIO()
        frames[0].save(file, form, save_all=True, append_images=frames[1:])
        made[f"{form.lower()}-frames"] = file.getvalue()
    return made


def _known() -> set[str]:
    Image.init()
    return set(Image.SAVE)


def opened(folder: Path) -> Feed:
    def feed(data: bytes) -> None:
        picture = load_picture(read_picture(data), max_pixels=MOST_PIXELS)
        assert picture.mode == "RGB"
        picture.tobytes()

    return feed


SURFACE = Surface(
    f"picture files, of at most {MOST_PIXELS // 10**6} megapixels", opened, seeds, pictures.mutated, spend_mib=96
)
