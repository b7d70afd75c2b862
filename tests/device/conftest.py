"""Fixtures of the device tests. No torch here either."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

BUNDLE = Path(__file__).parents[1] / "golden/bundle"


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    Image.effect_noise((130, 97), 90).convert("RGB").save(path)
    return path


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy, to be spoiled."""
    return Path(shutil.copytree(BUNDLE, tmp_path / "bundle"))
