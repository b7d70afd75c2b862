"""What the TensorRT backend holds on a GPU is given back, on a faked one (tests/tiny/faked_gpu.py)."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

import hired_runtime
from hired_edge.errors import InputError
from hired_runtime.pipeline import Request
from tests.device.conftest import BUNDLE
from tests.tiny import faked_engines, faked_gpu

PICTURE = BUNDLE.parents[2] / "demo/pictures/coffee.jpg"


def test_close_releases_everything(monkeypatch: pytest.MonkeyPatch, bundle: Path) -> None:
    driver = faked_gpu.install(monkeypatch)
    faked_engines.build(bundle)
    model = hired_runtime.open(bundle, visual_tokens="20%", images=1)
    assert driver.live
    model.close()
    model.close()
    assert (driver.live, driver.pinned, driver.streams, driver.contexts) == ({}, set(), 0, 0)
    with pytest.raises(InputError, match="a model that was closed"):
        model.ask("What is it?")
    with pytest.raises(InputError, match="a model that was closed"):
        model.pipeline.look(Request((), [PICTURE], "20%"))


def test_a_model_that_is_dropped_releases_everything(monkeypatch: pytest.MonkeyPatch, bundle: Path) -> None:
    driver = faked_gpu.install(monkeypatch)
    faked_engines.build(bundle)
    model = hired_runtime.open(bundle, visual_tokens="20%", images=1)
    assert driver.live
    del model
    gc.collect()
    assert (driver.live, driver.streams, driver.contexts) == ({}, 0, 0)
