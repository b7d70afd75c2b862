"""The TensorRT backend on the graphs that TensorRT gets, fp16, on a faked GPU (tests/tiny/faked_gpu.py).

`jp7` writes its cache in place and takes a mask; `jp6` returns new keys and values, which are copied behind the past.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import hired_runtime
from hired_edge.bundle import Bundle
from hired_edge.engine_check import machine_folder, read_engines
from hired_edge.errors import BundleError
from hired_runtime.trt import build_bundle
from hired_runtime.trt.engines_folder import put_in_place
from tests.host.bundles import Bundles
from tests.host.reference import picture
from tests.tiny import faked_engines, faked_gpu
from tests.tiny.alike import check_conversations
from tests.tiny.behaviour import check_ragged_rows, check_reset_heals, check_same_answers

TOLERANCE = 2e-3
"""Of the largest logit: the same kernels on the same float16 numbers."""


@pytest.mark.parametrize("name", ["jp7-fp16", "jp6-fp16", "jp6-window"])
def test_answers_rows_and_reset_as_on_onnx_runtime_on_a_faked_gpu(
    name: str, bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = faked_gpu.install(monkeypatch)
    folder = Path(shutil.copytree(bundles(name).bundle, tmp_path / name))
    faked_engines.build(folder)
    model = hired_runtime.open(folder, batch=2)
    reference = hired_runtime.open(folder, batch=2, threads=1, backend="onnxruntime")
    assert model.cache_bytes == reference.cache_bytes
    images = [picture(107, 80)]
    check_same_answers(model, reference, [("What is it?", images, {"max_new_tokens": 8})], TOLERANCE)
    check_same_answers(model, reference, [("Read the sign.", images, {"visual_tokens": "20%"})], TOLERANCE)
    check_ragged_rows(model, reference, TOLERANCE)
    check_conversations(model, reference, [picture(107, 80), picture(60, 90)], TOLERANCE)
    check_reset_heals(model, lambda: model.ask("What is it?", images, max_new_tokens=3).tokens)
    single = hired_runtime.open(folder, visual_tokens="20%", batch=1)
    before = driver.launches
    answer = single.ask("What is it?", images, max_new_tokens=5)
    assert driver.launches == before + len(answer.tokens) - 1
    for each in (single, model):
        each.close()
    assert not driver.live


@pytest.mark.parametrize("name", ["jp7-fp16", "jp6-fp16"])
def test_every_language_engine_is_checked_after_its_build_on_a_faked_gpu(
    name: str, bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An opening takes one of them: a broken engine of the longest cache must not hide behind the shortest."""
    driver = faked_gpu.install(monkeypatch)
    folder = Path(shutil.copytree(bundles(name).bundle, tmp_path / name))
    faked_engines.build(folder)
    assert checked(folder) == "passed"
    hired_runtime.open(folder, visual_tokens="20%").close()
    other = Path(shutil.copytree(folder / "language", tmp_path / "other"))
    (data,) = other.glob("*.data")
    data.write_bytes(bytes(reversed(data.read_bytes()[: 2**12])) + data.read_bytes()[2**12 :])
    longest = Bundle.open(folder).manifest.language_graphs[-1].file
    content = faked_engines.engine_content
    monkeypatch.setattr(
        faked_engines,
        "engine_content",
        lambda onnx, *rest: content(other / onnx.name if onnx.name == Path(longest).name else onnx, *rest),
    )
    shutil.rmtree(folder / "engines")
    faked_engines.build(folder)
    assert checked(folder) == "failed"
    assert not driver.live
    with pytest.raises(BundleError, match="gave wrong answers after they were built"):
        hired_runtime.open(folder, visual_tokens="20%")
    shutil.rmtree(folder / "engines")
    kept = faked_engines.build(folder)
    driver.limit = 2**12
    before = {path.name: path.read_bytes() for path in kept.iterdir()}
    complaint = r"a cache of \d+ tokens cannot be checked: CUDA cannot allocate .*tokens"
    with pytest.raises(BundleError, match=complaint), put_in_place(kept) as partial:
        checked(folder, Path(shutil.copytree(kept, partial, dirs_exist_ok=True)))
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == before, "the engines that were there"
    assert list(kept.parent.iterdir()) == [kept]


def checked(folder: Path, engines: Path | None = None) -> str:
    """`engines`: where they lie while they are built."""
    bundle = Bundle.open(folder)
    record = read_engines(folder, bundle.manifest.files, faked_engines.MACHINE)
    assert len(record.engines) > 2
    place = machine_folder(folder, faked_engines.MACHINE) if engines is None else engines
    check = build_bundle.check_engines(bundle, place, record).check
    assert check is not None
    return check.result
