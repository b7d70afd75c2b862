"""The prompt's tokens and the picture's pixels for the PyTorch sides, made by the runtime's own code.

That code equals transformers' processors to the last bit (tests/host/test_preprocess_parity.py, test_prompt_parity.py),
so no side wins or loses by how a picture is resized.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from hired_edge.bundle import read_manifest
from hired_edge.tiling import Tiling, tile
from hired_runtime.backend import Floats
from hired_runtime.pictures import load_picture
from hired_runtime.preprocess import pixel_values
from hired_runtime.prompt import EncodedPrompt, PromptTemplate
from hired_runtime.request import Request


class Prepared(NamedTuple):
    """One row: its text with a place for the picture, and the picture as (T, 3, h, w)."""

    prompt: EncodedPrompt
    tiling: Tiling
    pixels: Floats


class Preparation:
    """A bundle's rules for prompts and pictures."""

    def __init__(self, bundle: Path) -> None:
        self.manifest = read_manifest(bundle)
        self._template = PromptTemplate.open(bundle, self.manifest.prompt, image_token=self.manifest.image_token)

    def row(self, request: Request) -> Prepared:
        """Prepares a request with one picture, from its file on."""
        prompt = self._template.render(request.messages, pictures=1)
        (source,) = request.images
        picture = load_picture(source)
        tiling = tile(picture.height, picture.width, self.manifest.vision.tiling)
        return Prepared(prompt, tiling, pixel_values(picture, tiling, self.manifest.vision.preprocess))
