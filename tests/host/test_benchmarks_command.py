"""`python -m benchmarks.gpu` as a user meets it: files, page, what goes wrong, and gpu_check.sh; on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlavaNextForConditionalGeneration

from benchmarks import comparison, gpu, page, results, shapes
from benchmarks.comparison import Plan, compare, in_child
from benchmarks.results import Cell, Results, Row
from benchmarks.shapes import Files
from hired_edge import strict
from hired_edge.errors import HiredEdgeError, InputError
from hired_export import exporter, parity
from hired_export.checkpoint import Checkpoint
from hired_export.synthetic import synthetic_checkpoint
from tests.host.bundles import Bundles, traced_language, traced_vision
from tests.host.comparisons import here, plan_of, quiet
from tests.tiny.children import count
from tests.tiny.commands import Capture

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def plan(bundles: Bundles, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return plan_of(bundles("next-llama"), "next-llama", tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def found(plan: Plan) -> Results:
    """Every cell of a small comparison."""
    return compare(replace(plan, new_tokens=4), quiet, quiet, here)


def test_the_page_is_made_of_the_figures_alone(found: Results, tmp_path: Path) -> None:
    out = tmp_path / "page.md"
    gpu.write(found, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page-figures.json", "page.md"]
    read = results.read(gpu.figures_of(out))
    assert read == found
    text = out.read_text()
    assert text == page.text(read)
    for row in found.rows:
        assert row.figures is not None
        assert f"| {row.figures.ttft_ms.median:.1f} |" in text
        assert f"| {row.figures.tokens_per_s.median:.1f} |" in text
    assert str(ROOT) not in text + gpu.figures_of(out).read_text()
    assert "CPU" in text.splitlines()[0]


def test_a_page_that_cannot_be_written_leaves_none(found: Results, tmp_path: Path) -> None:
    broken = replace(found, setup=replace(found.setup, picture=(1,)))
    with pytest.raises(ValueError, match="unpack"):
        gpu.write(broken, tmp_path / "page.md")
    assert list(tmp_path.iterdir()) == []


def test_the_committed_page() -> None:
    """It is the program's: of the figures beside it, or the one that says that there are none."""
    figures = gpu.figures_of(gpu.PAGE)
    expected = page.text(results.read(figures)) if figures.exists() else page.without_gpu()
    assert gpu.PAGE.read_text() == expected


def test_the_page_without_a_gpu(tmp_path: Path, capsys: Capture) -> None:
    assert gpu.main(["--without-gpu", "--out", str(tmp_path / "gpu.md")]) == 0
    assert (tmp_path / "gpu.md").read_text() == page.without_gpu()
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"page": "gpu.md", "measured": False}


def test_trouble_in_a_cell_is_told_there_and_the_rest_goes_on(plan: Plan, found: Results) -> None:
    """The trouble is faked: no cell of a tiny model runs out of memory."""
    troubles = {"ours-fp32-40-b2": "onnxruntime: Failed to allocate memory", "stock-fp32-100-b1": "a | b"}

    def call(function: Callable[..., Any], argument: Any, show: Callable[[str], None]) -> Any:
        if function is comparison.measure:
            side, one = argument
            name = Cell(side, "fp32", one.asked.budget, one.asked.batch).name
            if name in troubles:
                raise HiredEdgeError(troubles[name], expected="room", fix="ask for less")
        return function(argument, show)

    seen: list[Row] = []
    told = compare(replace(plan, new_tokens=2, iterations=1), quiet, seen.append, call)
    assert tuple(seen) == told.rows
    assert {row.cell.name: row.trouble for row in told.rows if row.trouble} == {
        "ours-fp32-40-b2": "out of memory",
        "stock-fp32-100-b1": "a / b",
    }
    assert all(row.figures for row in told.rows if row.trouble is None)
    assert "| out of memory |" in page.text(told)


def test_what_was_measured_is_not_measured_again(plan: Plan, found: Results) -> None:
    asked: list[Any] = []

    def call(function: Callable[..., Any], argument: Any, show: Callable[[str], None]) -> Any:
        asked.append(function)
        return function(argument, show)

    few = replace(plan, budgets=("20%",), batches=(1,), new_tokens=4)
    again = compare(few, quiet, quiet, call)
    assert comparison.measure not in asked
    assert [row.figures for row in again.rows] == [row.figures for row in found.rows if row.cell in list(few.cells())]
    compare(replace(few, restart=True), quiet, quiet, call)
    assert asked.count(comparison.measure) == 2


def test_a_process_that_dies_is_an_error_here() -> None:
    with pytest.raises(HiredEdgeError, match="the process ended with status 3"):
        in_child(count, (5, 3), quiet)


@pytest.mark.slow
def test_the_tiny_shape_from_the_command_line(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights drawn, exported, measured and written, but for the processes."""
    monkeypatch.setattr(exporter, "language_graph", traced_language)
    monkeypatch.setattr(exporter, "vision_graph", traced_vision)
    monkeypatch.setattr(exporter, "export", partial(exporter.export, check=parity.check))
    out = tmp_path / "gpu.md"
    where = ["--shape", "tiny", "--device", "cpu", "--work", str(tmp_path), "--out", str(out)]
    few = "--budgets 20% --batches 1 --precisions fp32 --new-tokens 4 --warmup 0 --iterations 1"
    assert gpu.main([*where, *few.split()], here) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in printed[:-1]] == ["research-fp32-20-b1", "ours-fp32-20-b1"]
    assert f"python -m benchmarks.gpu --shape tiny --device cpu {few}" in out.read_text()
    read = results.read(gpu.figures_of(out))
    assert json.loads(printed[-1]) == strict.to_json(read)
    assert all(each.same_visual_tokens == each.visual_tokens for each in read.agreements)
    assert read.agreements[0].same_tokens == 4


def test_a_drawn_checkpoint_is_the_synthetic_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its shards are written by several processes; transformers finds every weight in them."""
    monkeypatch.setattr(shapes, "SHARD_BYTES", 2**19)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    files = Files(tmp_path, shapes.SHAPES["tiny"], 5)
    shapes.make_checkpoint(files)
    assert [path.name for path in files.folder.iterdir()] == ["checkpoint"]
    assert len(list(files.checkpoint.glob("*.safetensors"))) > 1
    config = tmp_path / "tiny.json"
    config.write_text(json.dumps(shapes.TINY))
    drawn = Checkpoint(files.checkpoint).tensors
    with synthetic_checkpoint(str(config), 5) as folder:
        right = Checkpoint(folder).tensors
        assert drawn.keys() == right.keys()
        for name, tensor in right.items():
            assert np.array_equal(drawn[name].stored(), tensor.stored()), name
    loaded: Any = LlavaNextForConditionalGeneration.from_pretrained(files.checkpoint, output_loading_info=True)
    net, told = loaded
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    gate = net.get_parameter("model.language_model.layers.1.mlp.gate_proj.weight")
    assert np.array_equal(gate.detach().numpy(), right["text.layers.1.mlp.gate_proj.weight"].stored())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--shape", "huge"], "--shape huge"),
        (["--budgets", "100%,64"], "expected percentages"),
        (["--batches", "8"], "--batches 8; expected 1 to 4"),
        (["--new-tokens", "1"], "--new-tokens 1; expected 2 to 64"),
        (["--precisions", "fp32"], "--precisions fp32; expected fp16 or int4"),
        (["--device", "cpu"], "--device cpu without --out"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_what_is_refused(argv: list[str], message: str, capsys: Capture) -> None:
    assert gpu.main(argv) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("benchmarks.gpu: error: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1


def test_without_a_gpu_nothing_is_written(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # as it is where there is none
    out = tmp_path / "gpu.md"
    assert gpu.main(["--work", str(tmp_path / "work"), "--out", str(out)], here) == 2
    assert "no NVIDIA GPU" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_page_without_a_folder_is_refused_before_anything_is_measured(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "none" / "gpu.md"
    assert gpu.main(["--shape", "tiny", "--device", "cpu", "--work", str(tmp_path / "work"), "--out", str(out)]) == 2
    assert "none is no folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def check(tmp_path: Path, nvidia_smi: int, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs gpu_check.sh with a faked nvidia-smi that ends so."""
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\nexit {nvidia_smi}\n")
    smi.chmod(0o755)
    variables = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", **environment}
    script = [ROOT / "benchmarks/gpu_check.sh", "--iterations", "7"]
    return subprocess.run(script, env=variables, capture_output=True, text=True, timeout=60)


def test_gpu_check_says_so_where_a_faked_nvidia_smi_finds_no_gpu(tmp_path: Path) -> None:
    done = check(tmp_path, 9)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "no NVIDIA GPU" in done.stderr


@pytest.mark.parametrize(("tests", "status"), [(0, 0), (1, 1)])
def test_gpu_check_runs_its_three_parts_with_a_faked_interpreter(tests: int, status: int, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@"\ncase "$*" in *pytest*) exit {tests} ;; *doctor*) exit 1 ;; esac\n')
    python.chmod(0o755)
    done = check(tmp_path, 0, GPU_PYTHON=str(python))
    ran = ["-m pytest -m gpu -p no:cacheprovider", "-m hired_edge doctor", "-m benchmarks.gpu --iterations 7"]
    assert done.stdout.splitlines() == ran
    assert done.returncode == status


def test_a_row_has_figures_or_trouble() -> None:
    with pytest.raises(InputError, match="with figures and trouble, or neither"):
        Row(Cell("ours", "fp16", "20%", 1), None, None, None)
