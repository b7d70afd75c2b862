"""The TensorRT backend from end to end on a faked GPU (tests/tiny/faked_gpu.py): ONNX Runtime stands for the engines.

What is real here: the bundle, its records and checks, the choice of backend, every address, shape, copy and capture
that our code asks for, and the answers. What is not: CUDA and TensorRT themselves.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hired_runtime
from hired_edge.bundle import Bundle
from hired_edge.engine_check import Machine, rebuild_command
from hired_edge.errors import BundleError, HiredEdgeError, InputError
from hired_runtime import backends, golden, ort_provider
from hired_runtime.board import software
from tests.device.conftest import BUNDLE
from tests.tiny import faked_engines, faked_gpu
from tests.tiny.behaviour import check_ragged_rows, check_reset_heals, check_same_answers
from tests.tiny.commands import Capture, accepted, refused, refused_in_the_end

PICTURE = BUNDLE.parents[2] / "demo/pictures/coffee.jpg"
TOLERANCE = 1e-4
"""Of the largest logit: the same kernels, in float32, on the same numbers."""


@pytest.fixture(scope="module")
def driver() -> Iterator[faked_gpu.FakedDriver]:
    with pytest.MonkeyPatch.context() as patch:
        yield faked_gpu.install(patch)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(BUNDLE, tmp_path_factory.mktemp("built") / "bundle"))
    faked_engines.build(folder)
    return folder


@pytest.fixture(scope="module")
def model(driver: faked_gpu.FakedDriver, built: Path) -> hired_runtime.Model:
    return hired_runtime.open(built, visual_tokens="40%", batch=2)


@pytest.fixture(scope="module")
def reference() -> hired_runtime.Model:
    return hired_runtime.open(BUNDLE, visual_tokens="40%", batch=2, threads=1, backend="onnxruntime")


def ask(model: hired_runtime.Model, tokens: int = 6) -> list[int]:
    return model.ask("What is it?", [PICTURE], max_new_tokens=tokens).tokens


def test_built_engines_and_a_gpu_are_the_default(model: hired_runtime.Model) -> None:
    name = model.pipeline.backend.name
    assert name == f"tensorrt {faked_gpu.VERSION}, SM {faked_gpu.SM} (Faked GPU), CUDA graph"


def test_answers_are_onnx_runtimes(model: hired_runtime.Model, reference: hired_runtime.Model) -> None:
    requests: list[tuple[str, list[Any], dict[str, Any]]] = [
        ("What is it?", [PICTURE], {"max_new_tokens": 8}),
        ("What are they?", [PICTURE, PICTURE], {"max_new_tokens": 4, "visual_tokens": "20%"}),
        ("And no picture?", [], {"max_new_tokens": 3}),
    ]
    check_same_answers(model, reference, requests, TOLERANCE)


def test_rows_of_unlike_lengths(model: hired_runtime.Model, reference: hired_runtime.Model) -> None:
    check_ragged_rows(model, reference, TOLERANCE)


def test_a_reset_heals_a_poisoned_cache(model: hired_runtime.Model) -> None:
    check_reset_heals(model, lambda: ask(model, 3))


def test_the_cache_is_zero_at_load_and_after_a_reset(driver: faked_gpu.FakedDriver, built: Path) -> None:
    model = hired_runtime.open(built, visual_tokens="20%", images=1)
    language: Any = model.pipeline.backend.language
    cache = np.frombuffer(driver.live[language._cache.address], np.uint8)
    assert len(cache) == model.cache_bytes
    assert not cache.any(), "neither what was there before, nor the step that was captured"
    ask(model, 2)
    assert cache.any()
    language.reset()
    assert not cache.any()
    del cache
    model.close()


def test_no_request_allocates(model: hired_runtime.Model, driver: faked_gpu.FakedDriver) -> None:
    before = {address: len(memory) for address, memory in driver.live.items()}
    for _ in range(3):
        ask(model, 2)
    assert {address: len(memory) for address, memory in driver.live.items()} == before


def test_decoding_all_rows_launches_the_cuda_graph(driver: faked_gpu.FakedDriver, built: Path) -> None:
    model = hired_runtime.open(built, visual_tokens="20%", images=1)
    before = driver.launches
    tokens = ask(model, 5)
    assert driver.launches == before + len(tokens) - 1
    model.close()


def test_golden_outputs_replay(driver: faked_gpu.FakedDriver, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(built)
    backend = backends.load(backends.choose(built), bundle, golden.limits(bundle.manifest))
    assert {each.piece.split()[0] for each in golden.replay(bundle, backend)} == {"vision", "language"}
    monkeypatch.setattr(golden, "TOLERANCES", {"float32": -1.0})  # nothing is so near
    with pytest.raises(BundleError, match=rf"golden output .* this tensorrt: {re.escape(rebuild_command(built))}$"):
        list(golden.replay(bundle, backend))
    backend.close()


def test_what_cannot_be_captured_runs_without_a_graph(
    driver: faked_gpu.FakedDriver, built: Path, monkeypatch: pytest.MonkeyPatch, model: hired_runtime.Model
) -> None:
    monkeypatch.setattr(driver, "capturable", False)
    plain = hired_runtime.open(built, visual_tokens="40%", batch=2)
    assert plain.pipeline.backend.name.endswith(", no CUDA graph")
    language: Any = plain.pipeline.backend.language
    assert language.graph == "no CUDA graph: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED: stream capture unsupported"
    assert ask(plain, 4) == ask(model, 4)
    plain.close()


def test_an_engine_with_one_profile_serves_both(
    driver: faked_gpu.FakedDriver, model: hired_runtime.Model, bundle: Path
) -> None:
    faked_engines.build(bundle, one_profile=True)
    single = hired_runtime.open(bundle, visual_tokens="40%", batch=2)
    assert ask(single, 3) == ask(model, 3)
    single.close()


def test_too_little_memory_is_told_in_one_line_and_nothing_is_kept(
    monkeypatch: pytest.MonkeyPatch, built: Path
) -> None:
    driver = faked_gpu.install(monkeypatch)
    driver.limit = 2**20
    with pytest.raises(
        BundleError, match=r"^CUDA cannot allocate \d+ bytes for .* \(CUDA_ERROR_OUT_OF_MEMORY: "
    ) as error:
        hired_runtime.open(built)
    assert "GiB are free" in error.value.got
    assert "\n" not in str(error.value)
    assert (driver.live, driver.streams, driver.contexts) == ({}, 0, 0)


def test_engines_for_fewer_rows_are_refused_with_both_numbers(driver: faked_gpu.FakedDriver, bundle: Path) -> None:
    faked_engines.build(bundle, batch=1)
    with pytest.raises(BundleError, match=r"up to \(1, .*expected \(2, .*hired-edge build .* --force$"):
        hired_runtime.open(bundle, batch=2)
    hired_runtime.open(bundle, batch=1, visual_tokens="20%").close()


OTHERS = {
    "another version": Machine("tensorrt", "10.3.0.26", faked_gpu.SM),
    "another SM": Machine("tensorrt", faked_gpu.VERSION, 86),
    "another module": Machine("tensorrt_rtx", "1.7.1.116", faked_gpu.SM),
}


@pytest.mark.parametrize("machine", OTHERS.values(), ids=OTHERS.keys())
@pytest.mark.parametrize("asked", [None, "tensorrt"])
def test_engines_that_do_not_fit_are_refused_and_never_passed_over(
    machine: Machine, asked: str | None, driver: faked_gpu.FakedDriver, bundle: Path
) -> None:
    faked_engines.build(bundle, machine=machine)
    with pytest.raises(BundleError) as error:
        hired_runtime.open(bundle, backend=asked)
    assert str(error.value).endswith(f"run: {rebuild_command(bundle)}")
    assert hired_runtime.open(bundle, visual_tokens="20%", backend="onnxruntime").pipeline.backend.name.startswith(
        "onnx"
    )


@pytest.mark.parametrize("asked", [(), ("--backend", "tensorrt")], ids=["by default", "asked for"])
def test_run_show_and_verify_refuse_alike_on_a_faked_gpu(
    asked: tuple[str, ...], driver: faked_gpu.FakedDriver, bundle: Path, capsys: Capture, tmp_path: Path
) -> None:
    faked_engines.build(bundle, machine=OTHERS["another version"])
    end = f"run: {rebuild_command(bundle)}"
    assert refused(capsys, "run", bundle, "--prompt", "What?", *asked).endswith(end)
    assert refused(capsys, "show", bundle, "--image", PICTURE, "-o", tmp_path / "x.png", *asked).endswith(end)
    assert refused_in_the_end(capsys, "verify", bundle, *asked).endswith(end)
    assert "golden  language logits" in accepted(capsys, "verify", bundle, "--backend", "onnxruntime")
    shutil.rmtree(bundle / "engines")
    faked_engines.build(bundle)
    assert f"engine  tensorrt {faked_gpu.VERSION}" in accepted(capsys, "verify", bundle, *asked)


def test_a_file_that_is_no_engine_is_refused_with_what_tensorrt_said(
    driver: faked_gpu.FakedDriver, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faked_engines, "engine_content", lambda *_: b"no engine")
    faked_engines.build(bundle)
    with pytest.raises(BundleError, match=r"cannot load .*vision\.engine \(faked: not an engine at all\); .*--force$"):
        hired_runtime.open(bundle)


def test_an_engine_that_would_copy_the_cache_is_refused(
    driver: faked_gpu.FakedDriver, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = faked_engines.engine_content
    monkeypatch.setattr(faked_engines, "engine_content", lambda onnx, profiles, aliases: content(onnx, profiles, {}))
    faked_engines.build(bundle)
    with pytest.raises(BundleError, match=r"does not write present\.0\.key in the place of past_key_values\.0\.key"):
        hired_runtime.open(bundle)


def test_without_a_gpu_engines_are_some_boards(monkeypatch: pytest.MonkeyPatch, built: Path) -> None:
    faked_gpu.install(monkeypatch, gpus=0)
    assert backends.choose(built) == "onnxruntime"
    with pytest.raises(InputError, match="on a machine without an NVIDIA GPU"):
        hired_runtime.open(built, backend="tensorrt")


def test_without_engines_onnx_runtime_is_the_default(driver: faked_gpu.FakedDriver, tmp_path: Path) -> None:
    assert backends.choose(BUNDLE) == "onnxruntime"
    (tmp_path / "engines/.sm87-tensorrt10.16.2.123.partial").mkdir(parents=True)  # of a build that was killed
    assert backends.choose(tmp_path) == "onnxruntime"
    with pytest.raises(BundleError, match=r"has engines for no machine.*hired-edge build"):
        hired_runtime.open(BUNDLE, backend="tensorrt")


def test_a_gpu_without_cuda_bindings_is_told_of_a_faked_gpu(
    monkeypatch: pytest.MonkeyPatch, built: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)  # what importing it meets where it is not installed
    for devices, told in (((), 0), ((software.Device("Faked GPU", "8.7", 2**33),), 1)):
        monkeypatch.setattr(software, "cuda", lambda machine, d=devices: software.Cuda(True, "13.2", d, None))
        caplog.clear()
        assert backends.choose(built) == "onnxruntime"
        assert len(caplog.messages) == told
    assert "pip install 'hired-edge[tensorrt]'" in caplog.messages[0]


@pytest.mark.parametrize("target", ["cuda", "jp7", "jp6"])
def test_a_gpus_bundle_on_the_cpu_says_so_in_one_line(target: Any, caplog: pytest.LogCaptureFixture) -> None:
    manifest = Bundle.open(BUNDLE).manifest
    assert ort_provider.choose_provider(manifest) == ort_provider.CPU
    assert not caplog.messages
    assert ort_provider.choose_provider(replace(manifest, target=target)) == ort_provider.CPU
    (line,) = caplog.messages
    assert line.startswith(f"hired-edge: a bundle of --target {target} runs on the CPU, slowly: ")
    assert "\n" not in line


def test_that_line_reaches_stderr_where_nobody_set_up_logging() -> None:
    script = "import logging; logging.getLogger('hired_runtime.ort_provider').warning('hired-edge: slowly')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "hired-edge: slowly\n")


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(HiredEdgeError, match="backend 'cuda'; expected onnxruntime or tensorrt"):
        hired_runtime.open(BUNDLE, backend="cuda")


def test_features_stay_and_only_what_is_kept_crosses(
    model: hired_runtime.Model, reference: hired_runtime.Model
) -> None:
    """`gather` gives the reference's rows, whichever are asked for and in whatever order."""
    size, tiles = model.pipeline.manifest.vision.tiling.image_size, 3
    pixels = np.random.default_rng(0).standard_normal((tiles, 3, size, size)).astype(np.float32)
    visions = [each.pipeline.backend.vision for each in (model, reference)]
    maps = [vision.encode(pixels, 1) for vision in visions]
    np.testing.assert_allclose(maps[0].allocation, maps[1].allocation, atol=1e-5)
    np.testing.assert_allclose(maps[0].selection, maps[1].selection, atol=1e-5)
    last = tiles * model.pipeline.manifest.vision.tiling.patches_per_tile - 1
    rows = np.array([last, 0, 7, 3, 3])
    got, right = (vision.gather(rows, 1) for vision in visions)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, right, atol=1e-4)
    assert visions[0].gather(np.array([], np.int64), 1).shape == (0, got.shape[1])
