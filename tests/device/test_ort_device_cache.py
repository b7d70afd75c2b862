"""The cache that ONNX Runtime allocates on a device, tried on the device that is everywhere: "cpu".

The objects and bindings are ONNX Runtime's own, as on a GPU; what a GPU does with them, tests/host/test_gpu_backends.py
shows where there is one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

import hired_runtime
from hired_runtime.ort_device_cache import DeviceCache
from tests.device.conftest import BUNDLE


def on_device(model: hired_runtime.Model) -> DeviceCache:
    """Puts the model's cache into ONNX Runtime's memory."""
    manifest, language = model.pipeline.manifest, model.pipeline.backend.language
    engine: Any = language
    engine.cache = DeviceCache(manifest.text, model.limits.batch, model.pipeline.backend.slots, device="cpu")
    return engine.cache


def values(cache: DeviceCache) -> list[np.ndarray]:
    return [value.numpy() for value in cache._values]


def test_answers_do_not_depend_on_whose_memory_the_cache_is(picture: Path) -> None:
    numpys, onnxruntimes = (hired_runtime.open(BUNDLE, visual_tokens="20%", threads=1) for _ in range(2))
    cache = on_device(onnxruntimes)
    assert cache.nbytes == onnxruntimes.cache_bytes
    assert not any(value.any() for value in values(cache)), "zero-filled at load"
    addresses = [place.address for place in cache.places(1)]
    answers = [each.ask("What is it?", [picture], max_new_tokens=8).tokens for each in (numpys, onnxruntimes)]
    assert answers[0] == answers[1]
    engine: Any = numpys.pipeline.backend.language
    for ours, theirs in zip(values(cache), engine.cache.arrays, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert any(value.any() for value in values(cache)), "written in place: nobody copied it there"
    onnxruntimes.pipeline.backend.language.reset()
    assert not any(value.any() for value in values(cache))
    assert [place.address for place in cache.places(1)] == addresses


def test_rows_of_a_smaller_batch_are_the_first_ones() -> None:
    model = hired_runtime.open(BUNDLE, batch=2)
    cache = on_device(model)
    for whole, part in zip(cache.places(2), cache.places(1), strict=True):
        assert whole.address == part.address
        assert whole.shape == (2, *part.shape[1:])
        assert part.shape[0] == 1


def test_an_io_binding_takes_what_a_place_holds() -> None:
    text = onnxruntime.IOBinding.bind_input.__doc__ or ""
    code = onnxruntime.IOBinding.bind_input.__code__
    assert code.co_varnames[1:7] == ("name", "device_type", "device_id", "element_type", "shape", "buffer_ptr"), text
