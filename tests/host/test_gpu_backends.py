"""What both GPU backends must do alike, on a real NVIDIA GPU: `pytest -m gpu`.

TensorRT's engines are built here by `hired-edge build`, with the TensorRT that is installed; ONNX Runtime's CUDA
provider is tried where the installed ONNX Runtime has it. The reference is ONNX Runtime on the CPU, same bundle.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
import psutil
import pytest

import hired_runtime
from hired_edge.cli import main
from hired_runtime import ort
from hired_runtime.trt.cuda import Cuda
from hired_runtime.trt.device import find_device
from tests.host.bundles import Bundles
from tests.host.reference import picture
from tests.tiny.alike import check_conversations
from tests.tiny.behaviour import check_ragged_rows, check_reset_heals, check_same_answers
from tests.tiny.commands import Capture, accepted

pytestmark = pytest.mark.gpu

TOLERANCE = 2e-2
"""fp16: of the largest logit. Twice it is what two logits may be apart and still change places."""
REQUESTS, WARM_UP = 200, 20

INSTALLED = {
    "tensorrt": find_spec("tensorrt") is not None or find_spec("tensorrt_rtx_bindings") is not None,
    "onnxruntime": "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
}
BUNDLES = {"tensorrt": ("cuda-fp16", "jp7-int8", "jp7-int4", "jp6-fp16", "jp6-window"), "onnxruntime": ("cuda-fp16",)}
CASES = [(backend, name) for backend, there in INSTALLED.items() if there for name in BUNDLES[backend]]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A backend and a bundle for it, its engines built."""
    backend, name = request.param
    bundles: Bundles = request.getfixturevalue("bundles")
    folder = Path(shutil.copytree(bundles(name).bundle, tmp_path_factory.mktemp("gpu") / name))
    if backend == "tensorrt":
        assert main(["build", str(folder)]) == 0
    return backend, folder


@pytest.fixture(scope="module")
def model(case: tuple[str, Path]) -> Iterator[hired_runtime.Model]:
    backend, folder = case
    opened = hired_runtime.open(folder, batch=2, backend=backend)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def reference(case: tuple[str, Path]) -> hired_runtime.Model:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ort, "choose_provider", lambda manifest: ort.CPU)
        return hired_runtime.open(case[1], batch=2, backend="onnxruntime")


def ask(model: hired_runtime.Model, tokens: int = 8) -> list[int]:
    return model.ask("What is it?", [picture(107, 80)], max_new_tokens=tokens).tokens


def test_it_runs_on_the_gpu(case: tuple[str, Path], model: hired_runtime.Model) -> None:
    device = find_device()
    assert device is not None
    name = model.pipeline.backend.name
    print(name)
    assert (f"SM {device.sm} ({device.name})" if case[0] == "tensorrt" else "CUDAExecutionProvider") in name


def test_decoding_is_captured_as_a_cuda_graph(case: tuple[str, Path], model: hired_runtime.Model) -> None:
    if case[0] == "tensorrt":
        assert getattr(model.pipeline.backend.language, "graph", "") == "CUDA graph"


def test_verify_replays_the_golden_outputs(case: tuple[str, Path], capsys: Capture) -> None:
    backend, folder = case
    printed = accepted(capsys, "verify", folder, "--backend", backend)
    assert "golden  language logits" in printed
    print(printed)


def test_answers_are_the_cpus(model: hired_runtime.Model, reference: hired_runtime.Model) -> None:
    requests = [
        ("What is it?", [picture(107, 80)], {"max_new_tokens": 12}),
        ("Read the sign.", [picture(30, 170)], {"max_new_tokens": 12, "visual_tokens": "20%"}),
        ("How many are there?", [picture(56, 56)], {"max_new_tokens": 12, "visual_tokens": 7}),
        ("And no picture?", [], {"max_new_tokens": 12}),
    ]
    check_same_answers(model, reference, requests, 2 * TOLERANCE)


def test_rows_of_unlike_lengths(model: hired_runtime.Model, reference: hired_runtime.Model) -> None:
    check_ragged_rows(model, reference, TOLERANCE)
    check_conversations(model, reference, [picture(107, 80), picture(60, 90)], TOLERANCE)


def test_a_reset_heals_a_poisoned_cache(model: hired_runtime.Model) -> None:
    check_reset_heals(model, lambda: ask(model))


def test_attention_maps_and_kept_rows_are_the_cpus(model: hired_runtime.Model, reference: hired_runtime.Model) -> None:
    size = model.pipeline.manifest.vision.tiling.image_size
    pixels = np.random.default_rng(0).standard_normal((3, 3, size, size)).astype(np.float32)
    visions = [each.pipeline.backend.vision for each in (model, reference)]
    rows = np.array([17, 0, 3, 3])
    maps, kept = [vision.encode(pixels) for vision in visions], [vision.gather(rows) for vision in visions]
    for got, right in ((maps[0].allocation, maps[1].allocation), (maps[0].selection, maps[1].selection), kept):
        assert got.shape == right.shape
        assert np.abs(got - right).max() <= TOLERANCE * np.abs(right).max()


def test_many_requests_take_no_more_memory(model: hired_runtime.Model) -> None:
    """And every one of them answers alike."""
    gpu, process = Cuda(), psutil.Process()
    answers = [ask(model, 4) for _ in range(WARM_UP)]
    free, resident = gpu.memory()[0], process.memory_info().rss
    answers += [ask(model, 4) for _ in range(REQUESTS)]
    assert free - gpu.memory()[0] <= 2**20
    assert process.memory_info().rss - resident <= 4 * 2**20
    assert all(answer == answers[0] for answer in answers)
    gpu.close()
