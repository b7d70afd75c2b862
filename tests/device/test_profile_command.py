"""`hired-edge profile` on the committed bundles: figures that agree with each other and with the runtime's own."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import hired_runtime
from demo.scenes.compose import compose
from demo.scenes.draw import encode
from hired_edge.budget import parse_budget
from hired_runtime.pipeline import STAGES
from hired_runtime.profiling import Plan, Profile, profile, read
from hired_runtime.profiling.fixed_request import ask
from hired_runtime.profiling.measuring import Job
from hired_runtime.prompt import question
from hired_runtime.request import Request
from tests.tiny.commands import Capture, accepted, refused

ROOT = Path(__file__).parents[2]
BUNDLE, DEMO = ROOT / "tests/golden/bundle", ROOT / "demo/bundle"
BUDGETS = ("100%", "40%", "20")
FEW = ("--warmup", 1, "--iterations", 2, "--threads", 1)


@pytest.fixture(scope="module")
def profiled(picture: Path, tmp_path_factory: pytest.TempPathFactory) -> Profile:
    """The golden bundle, two iterations of five tokens at each budget."""
    plan = Plan(BUNDLE, (str(picture),), BUDGETS, new_tokens=5, warmup=1, iterations=2, threads=1)
    return profile(plan)


def test_the_stages_make_up_the_time(profiled: Profile) -> None:
    covered = []
    for budget in profiled.budgets:
        for iteration in range(2):
            ms = {name: found.values[iteration] for name, found in budget.timings_ms.items()}
            first = sum(ms[name] for name in STAGES if name != "decode")
            assert first <= ms["ttft"] + 0.001
            assert sum(ms[name] for name in STAGES) <= ms["total"] + 0.001
            assert all(ms[name] > 0 for name in STAGES)
            covered.append((first / ms["ttft"], sum(ms[name] for name in STAGES) / ms["total"]))
    best = np.array(covered).max(axis=0)  # whoever else uses the machine may come between two stages
    assert (best > 0.9).all(), covered


def test_rates_are_tokens_by_their_times(profiled: Profile) -> None:
    for budget in profiled.budgets:
        decode, total = (np.array(budget.timings_ms[name].values) for name in ("decode", "total"))
        assert budget.time_per_output_token_ms is not None
        assert budget.decode_tokens_per_s is not None
        np.testing.assert_allclose(budget.time_per_output_token_ms.values, decode / 4, rtol=1e-3)
        np.testing.assert_allclose(budget.decode_tokens_per_s.values, 4000 / decode, rtol=1e-3)
        np.testing.assert_allclose(budget.tokens_per_s.values, 5000 / total, rtol=1e-3)


def test_what_was_kept_and_allocated_is_what_the_runtime_says(profiled: Profile, picture: Path) -> None:
    for budget in profiled.budgets:
        model = hired_runtime.open(BUNDLE, visual_tokens=budget.budget, images=1)
        answer = model.ask(profiled.request.prompt, [picture], max_new_tokens=1)
        (selection,) = answer.selections
        assert (budget.visual.kept, budget.visual.newlines) == (selection.kept, selection.newlines)
        assert (budget.visual.total, budget.visual.budget) == (selection.tiling.stock_tokens, selection.budget)
        assert profiled.request.text_tokens == answer.prompt_tokens
        assert budget.cache_bytes == model.cache_bytes
        assert budget.max_sequence_length == model.limits.max_sequence_length
        assert profiled.versions.engine == model.pipeline.backend.name
    assert [each.budget for each in profiled.budgets] == list(BUDGETS)
    assert profiled.budgets[0].cache_bytes > profiled.budgets[1].cache_bytes > profiled.budgets[2].cache_bytes


def test_memory_was_sampled(profiled: Profile) -> None:
    for budget in profiled.budgets:
        memory, load = budget.memory, budget.load
        assert memory.samples > 1
        assert 0 < memory.process_base_bytes < memory.process_requests_peak_bytes <= memory.process_peak_bytes
        # The kernel counts every page; a sample may fall between two, and is itself counted in batches.
        assert 0.5 < memory.process_peak_bytes / memory.process_high_water_bytes < 1.05
        assert memory.process_peak_bytes - memory.process_base_bytes > profiled.bundle.weights_bytes
        assert 0 < memory.system_base_bytes <= memory.system_peak_bytes <= profiled.machine.memory_bytes
        assert 0 < load.verify_ms < load.total_ms


def test_a_budget_has_a_process_of_its_own(picture: Path) -> None:
    ours = np.ones(2**26)  # 512 MiB that are none of the budget's
    found = profile(Plan(BUNDLE, (str(picture),), ("20%",), new_tokens=1, warmup=0, iterations=1))
    assert found.budgets[0].memory.process_high_water_bytes < ours.nbytes


def test_every_iteration_makes_all_tokens_whatever_the_model_says(tmp_path: Path) -> None:
    scene = tmp_path / "scene.jpg"
    scene.write_bytes(encode(compose(2024, 12)))
    prompt = "How many cards are there?"
    model = hired_runtime.open(DEMO, visual_tokens="20%", batch=2)
    answer = model.ask(prompt, [scene])
    assert answer.finish_reason == "stop"
    assert len(answer.tokens) < 16
    pipeline, language, shapes = model.pipeline, model.pipeline.backend.language, []

    def step(embeds: Any, *others: Any) -> Any:
        shapes.append(embeds.shape[:2])
        return language.step(embeds, *others)

    pipeline.backend = pipeline.backend._replace(language=SimpleNamespace(step=step))
    request = Request(question(prompt), [scene], visual_tokens="20%")
    for batch in (1, 2):
        shapes.clear()
        done = ask(pipeline, request, parse_budget("20%"), batch=batch, new_tokens=16)
        length = done.text_tokens + done.selections[0].visual_tokens
        assert shapes == [(batch, length), *[(batch, 1)] * 15]
    assert done.text_tokens == answer.prompt_tokens


def test_the_files_and_the_table(picture: Path, tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "new" / "report"
    options = ("--image", picture, "--image", picture, "--budgets", "100%, 20%", "--batch", 2, "-o", folder)
    out = accepted(capsys, "profile", BUNDLE, *options, "--prompt", "Two?", "--max-new-tokens", 3, *FEW, "--json")
    assert {path.name for path in folder.iterdir()} == {"profile.json", "profile.html"}
    written = json.loads((folder / "profile.json").read_text())
    assert json.loads(out.splitlines()[-1]) == written
    found = read(folder / "profile.json")
    assert [each.budget for each in found.budgets] == ["100%", "20%"]
    assert (found.request.batch, found.request.iterations, found.request.warmup) == (2, 2, 1)
    assert [(each.name, each.width, each.height) for each in found.request.images] == [("picture.png", 130, 97)] * 2
    for budget in found.budgets:
        np.testing.assert_allclose(
            budget.tokens_per_s.values, 2 * 3000 / np.array(budget.timings_ms["total"].values), rtol=1e-3
        )
    assert found.budgets[0].cache_bytes == hired_runtime.open(BUNDLE, batch=2).cache_bytes
    # A later run takes their place; one token has no decode step.
    options = ("--image", picture, "--budgets", "20%", "-o", folder)
    out = accepted(capsys, "profile", BUNDLE, *options, "--max-new-tokens", 1, *FEW)
    lines = {line[:28].strip(): line[28:].split() for line in out.splitlines()[1:]}
    (budget,) = read(folder / "profile.json").budgets
    assert lines["budget"] == ["20%"]
    assert lines["visual tokens kept"] == [str(budget.visual.kept + budget.visual.newlines)]
    assert lines["time to first token, ms"] == [f"{budget.timings_ms['ttft'].median:.1f}"]
    assert lines["throughput, tokens/s"] == [f"{budget.tokens_per_s.median:.2f}"]
    assert lines["key-value cache, MiB"] == [f"{budget.cache_bytes / 2**20:.1f}"]
    assert "time per output token, ms" not in lines
    assert budget.time_per_output_token_ms is budget.decode_tokens_per_s is None
    assert budget.timings_ms["decode"].values == (0, 0)
    assert "mean power, W" not in lines


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--image", ""], "no picture to profile with; expected at least one; pass --image FILE"),
        (["--image", "nowhere.png"], "nowhere.png"),
        (["--iterations", "0"], "--iterations 0; expected 1 or more; pass another --iterations"),
        (["--warmup", "-1"], "--warmup -1; expected 0 or more; pass another --warmup"),
        (["--batch", "3"], "3 batch rows asked for; expected at most 2, which the bundle was exported with"),
        (["--max-new-tokens", "49"], "49 new tokens asked for; expected at most 48"),
        (["--max-new-tokens", "0"], "--max-new-tokens 0; expected 1 or more; pass another --max-new-tokens"),
        (["--budgets", "many"], "a visual-token budget of 'many'"),
        (["--budgets", "20%,,40%"], "the list '20%,,40%'"),
        (["--budgets", "20%,20.0%"], "the budget 20% twice; expected each once; leave one out"),
        (["--budgets", "20%,673"], "673 visual tokens asked for; expected at most 672, which the bundle was exported"),
        (["--policy", "full"], "policy 'full' with the budgets 20%, 10%; expected 100%"),
        (["--alpha", "2"], "an allocation ratio alpha of 2"),
        (["--newlines", "all-rows", "--budgets", "2"], "a budget of 2"),
        (["--prompt", "word " * 200], "text tokens asked for; expected at most 128"),
        (["--backend", "other"], "invalid choice: 'other'"),
        (["--power"], "--power on a machine without tegrastats; expected a Jetson"),
        (["--render", "profile.json"], "--render with a bundle or a picture; expected a profile.json alone"),
        (["-o", "{file}/report"], "cannot be written to; expected a folder for the report; pass another -o"),
    ],
)
def test_what_is_refused(arguments: list[str], line: str, picture: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").touch()
    given = ["--image", str(picture), "--budgets", "20%,10%", "-o", str(tmp_path / "report")]
    if arguments == ["--image", ""]:
        given, arguments = given[2:], []
    filled = [argument.format(file=tmp_path / "file") for argument in arguments]
    assert line in refused(capsys, "profile", BUNDLE, *given, *FEW[:2], *filled)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_is_missing_is_named(picture: Path, tmp_path: Path, capsys: Capture) -> None:
    assert refused(capsys, "profile", BUNDLE, "--image", picture).startswith("no -o DIR; expected hired-edge profile")
    assert refused(capsys, "profile", "-o", tmp_path).startswith("no BUNDLE; expected hired-edge profile BUNDLE")
    assert "does not exist" in refused(capsys, "profile", tmp_path / "no", "--image", picture, "-o", tmp_path / "out")


def test_a_job_is_asked_as_run_asks(picture: Path) -> None:
    job = Job(str(BUNDLE), "20%", "Why?", (str(picture),), "hired", "0.3", None, 1, 2, None, None, 0, 1)
    assert job.request.budget == parse_budget("20%")
    assert (job.request.policy, job.request.alpha, job.request.max_new_tokens) == ("hired", "0.3", 2)
