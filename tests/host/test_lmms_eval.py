"""lmms-eval's own command with a bundle as its model, beside `hired_runtime.evaluation` on the same questions.

lmms-eval comes without what it depends on: most of that is for other models and tasks, and torchvision's wheel on PyPI
does not load beside a torch without CUDA. demo/lmms_tasks/requirements.txt is what the harness itself imports.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from demo.scenes.__main__ import HELD_OUT_SEED, write
from hired_runtime.evaluation import Setting, evaluate
from hired_runtime.lmms_eval.answer_options import answer_options
from tests.host.environments import ROOT, checked, environment, pins, pyproject
from tests.host.test_lowest_versions import lowest

BUNDLE = ROOT / "demo/bundle"
TASKS = ROOT / "demo/lmms_tasks"
TASK = "demo_scenes"
PICTURES = 4


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter of an environment with the wheel, an engine and lmms-eval."""
    project = pyproject()["project"]
    extras, lines = project["optional-dependencies"], (TASKS / "requirements.txt").read_text().splitlines()
    harness = [line for line in lines if line and not line.startswith("#")]
    pinned = pins("torch", "transformers", "pyyaml", "tqdm")
    requirements = [*project["dependencies"], *extras["cpu"], *harness, *pinned]
    return environment("lmms-eval", requirements, alone=lowest(extras["lmms-eval"]))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "questions"
    write(folder, HELD_OUT_SEED, PICTURES)
    return folder


def lmms_eval(python: Path, dataset: Path, out: Path, model_args: str, *options: str) -> str:
    """Runs the command in the data set's folder, without a network; gives what it prints."""
    offline = ("HF_HUB_OFFLINE=1", "HF_DATASETS_OFFLINE=1", f"HF_HOME={out / 'hub'}", "OMP_NUM_THREADS=1")
    model = ("--model", "hired_edge", "--model_args", f"bundle={BUNDLE},{model_args}", *options)
    task = ("--include_path", TASKS, "--tasks", TASK)
    logs = ("--output_path", out, "--log_samples", "--verbosity", "DEBUG")  # at which an error ends it with a status
    return checked("env", *offline, python.parent / "lmms-eval", *model, *task, *logs, cwd=dataset)


def read(out: Path) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """The results by metric, and a row for each question in order."""
    (results,), (samples,) = out.rglob("*_results.json"), out.rglob("*_samples_*.jsonl")
    found = json.loads(results.read_text())["results"][TASK]
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    scores = {name.split(",")[0]: value for name, value in found.items() if isinstance(value, float)}
    return scores, sorted(rows, key=lambda row: row["doc_id"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_args", "setting"),
    [
        ("visual_tokens=100%", Setting("full")),
        ("visual_tokens=20%", Setting("hired", "20%")),
        ("visual_tokens=20%,policy=random", Setting("random", "20%")),
    ],
)
def test_the_harness_gives_the_answers_and_scores_of_eval(
    model_args: str, setting: Setting, python: Path, dataset: Path, tmp_path: Path
) -> None:
    print(lmms_eval(python, dataset, tmp_path, model_args, "--batch_size", "8"))
    scores, rows = read(tmp_path)
    expected = evaluate(BUNDLE, dataset, [setting])
    texts = [row["resps"] for row in rows]
    assert texts == expected.texts[setting.key]
    assert scores["exact"] == pytest.approx(expected.accuracy(setting).value, abs=1e-12)
    for task in expected.tasks:
        assert scores[task] == pytest.approx(expected.accuracy(setting, task).value, abs=1e-12)
    print(f"{len(rows)} questions, the same answers; exact {scores['exact']:.4f} by lmms-eval and by eval")


TABLE_3 = ("vqav2_val", "scienceqa_img", "textvqa_val", "docvqa_val", "ocrbench", "mme", "pope", "chartqa")
"""The tasks that docs/lmms-eval.md runs."""

GENERATION_KWARGS = """
import json, sys
from lmms_eval import utils
from lmms_eval.api.task import TaskConfig
from lmms_eval.tasks import TaskManager

index = TaskManager().task_index
configs = {name: utils.load_yaml_config(index[name]["yaml_path"]) for name in sys.argv[1].split(",")}
kinds = {config["output_type"] for config in configs.values()}
print(json.dumps([sorted(kinds), {name: TaskConfig(**each).generation_kwargs for name, each in configs.items()}]))
"""


@pytest.mark.slow
def test_the_benchmarks_are_tasks_that_the_adapter_can_answer(python: Path) -> None:
    """Their names, the functions that they call, and their generation_kwargs: all that is there without a network."""
    printed = checked(python, "-c", GENERATION_KWARGS, ",".join(TABLE_3))
    kinds, options = json.loads(printed.splitlines()[-1])
    assert kinds == ["generate_until"]
    assert set(options) == set(TABLE_3)
    for name, kwargs in options.items():
        assert answer_options(kwargs).greedy, name
    page = (ROOT / "docs/lmms-eval.md").read_text()
    assert f"--tasks {','.join(TABLE_3)}" in page
