"""tests/device on the oldest supported versions of everything: the lower bounds that pyproject.toml itself states."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.host.bundles import Bundles
from tests.host.environments import checked, environment, pins, pyproject, python_310, run_device_tests
from tests.host.reference import picture
from tests.tiny.batches import noise_requests, read_rows

BUNDLE = Path(__file__).parents[1] / "golden/bundle"


def lowest(requirements: list[str]) -> list[str]:
    """`numpy>=1.26` becomes `numpy==1.26`, which pip takes as 1.26.0."""
    return [re.sub(r"^([\w-]+)>=([\d.]+)$", r"\1==\2", requirement) for requirement in requirements]


def oldest_environment() -> Path:
    """Its interpreter."""
    project = pyproject()["project"]
    extras = project["optional-dependencies"]
    oldest = lowest([*project["dependencies"], *extras["cpu"], *extras["eval"], *extras["serve"], *extras["sign"]])
    assert all("==" in requirement for requirement in oldest)
    return environment("lowest", [*oldest, *pins("pytest", "hypothesis", "openai")], python_310())


WHAT_CALLS_LIBRARIES = [
    "bad_requests",
    "bundle",
    "commands",
    "drawing",
    "engines",
    "evaluation_plots",
    "ort_device_cache",
    "packing",
    "pictures",
    "policies",
    "profile_command",
    "prompt",
    "runtime",
    "sampling",
    "selection",
    "serving_chat",
    "serving_safety",
    "tensorfile",
    "text",
    "trust_keys",
    "trust_signatures",
]
"""Parts of tests/device that numpy, pillow, tokenizers, jinja2, onnxruntime, matplotlib or cryptography have a say in,
without those that go through the same calls once more."""


def test_what_calls_libraries_passes_on_the_oldest_supported_versions(tmp_path: Path) -> None:
    python = oldest_environment()
    versions = "import sys, numpy, PIL; print(sys.version.split()[0], numpy.__version__, PIL.__version__)"
    print("Python, numpy, pillow:", checked(python, "-c", versions))
    print(run_device_tests(python, tmp_path, *(f"test_{name}.py" for name in WHAT_CALLS_LIBRARIES)))


@pytest.mark.slow
def test_all_device_tests_pass_on_the_oldest_supported_versions(tmp_path: Path) -> None:
    print(run_device_tests(oldest_environment(), tmp_path))


@pytest.mark.parametrize("name", ["jp6-fp16", "jp6-int4", "jp6-int8"])
def test_a_jp6_bundle_answers_alike_on_the_onnxruntime_of_jetpack_6(
    name: str, bundles: Bundles, tmp_path: Path
) -> None:
    """1.23.2, the last for its Python 3.10, against the one that is installed here."""
    picture(107, 80).save(tmp_path / "picture.png")
    question = ("--image", tmp_path / "picture.png", "--prompt", "What is it?", "--max-new-tokens", "8")
    command = ("-m", "hired_edge", "run", bundles(name).bundle, *question, "--json")
    answers = [
        json.loads(checked(python, *command, cwd=tmp_path).splitlines()[-1])
        for python in (oldest_environment(), Path(sys.executable))
    ]
    assert answers[0]["tokens"] == answers[1]["tokens"]
    assert answers[0]["visual"] == answers[1]["visual"]


@pytest.mark.slow
def test_a_cluster_answers_on_the_oldest_supported_ray(tmp_path: Path) -> None:
    project = pyproject()["project"]
    extras = project["optional-dependencies"]
    ray = [re.sub(r">=([\d.]+).*", r"==\1", requirement) for requirement in extras["ray"]]
    python = environment("lowest-ray", [*lowest([*project["dependencies"], *extras["cpu"]]), *ray], python_310())
    requests = noise_requests(tmp_path / "noise")
    command = ("-m", "hired_edge", "batch", BUNDLE, requests, "--max-new-tokens", "2", "--threads", "1")
    checked(python, *command, "-o", tmp_path / "one.jsonl")
    checked(python, *command, "-o", tmp_path / "many", "--ray", "local")
    read = "import sys, json, pyarrow.parquet as p; print(json.dumps(p.read_table(sys.argv[1])['text'].to_pylist()))"
    texts = json.loads(checked(python, "-c", read, tmp_path / "many/part-000000.parquet"))
    assert texts == [row["text"] for row in read_rows(tmp_path / "one.jsonl")]
    assert len(texts) == 12
    build = "from hired_runtime.ray_serve import app; import sys; print(type(app({'bundle': sys.argv[1]})).__name__)"
    assert checked(python, "-W", "ignore", "-c", build, BUNDLE).split()[-1] == "Application"
