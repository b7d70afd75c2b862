"""`hired-edge export` as a process: Ctrl-C, a kill and a full disk at every stage, and what is left afterwards.

How one goes on after a kill is test_resume.py's business.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from hired_edge import child
from hired_edge.bundle import Bundle
from hired_edge.errors import CheckpointError, ExportError
from hired_export import exporter
from hired_export.decoder import DecoderShape
from tests.host.bundles import Bundles, traced_language, traced_vision
from tests.tiny.checkpoints import write_checkpoint
from tests.tiny.children import fill, largest_file, refuse
from tests.tiny.commands import Capture, check_refusal, finish, refused, start

OPTIONS = ("--visual-tokens", "20%", "--max-text-tokens", "64", "--max-new-tokens", "16")
PATIENCE_S = 240

# Shapes, by which file of the bundle is the largest, since that is where a limit on file sizes strikes first.
FLAT = {"hidden_size": 4, "num_attention_heads": 1, "intermediate_size": 4}
TEXT = {**FLAT, "num_key_value_heads": 1, "max_position_embeddings": 256}
GRAPHS: dict[str, Any] = {
    "vision_config": {**FLAT, "image_size": 28},
    "image_grid_pinpoints": [[28, 56]],
    "text_config": TEXT,
}
GOLDEN: dict[str, Any] = {
    "vision_config": {**FLAT, "image_size": 336, "num_hidden_layers": 3},
    "image_grid_pinpoints": [[336, 672]],
    "text_config": {**TEXT, "num_hidden_layers": 1, "max_position_embeddings": 512},
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that is traced fast; its tower's first layer is the one for allocation and for selection."""
    layers: dict[str, Any] = {"text_config": {"num_hidden_layers": 1}, "vision_config": {"num_hidden_layers": 2}}
    return write_checkpoint(tmp_path_factory.mktemp("small") / "checkpoint", **layers)


def export(checkpoint: Path, out: Path, **popen: Any) -> subprocess.Popen[str]:
    return start("export", checkpoint, out, *OPTIONS, **popen)


def wait_for(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.002)


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def all_gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=30)[1]


MOMENTS: dict[str, Callable[[Path], bool]] = {
    "imports": lambda partial: True,
    "graphs": lambda partial: partial.is_dir(),
    "weights": lambda partial: (partial / "bundle/language/model.onnx.data").exists(),
    "the child's imports": lambda partial: (partial / "bundle/chat_template.jinja").exists(),
    "the parity check": lambda partial: (partial / "bundle/golden").is_dir(),
}
KEPT = ("the child's imports", "the parity check")
"""Moments by which tensors are whole, for the same command to go on with."""


@pytest.mark.parametrize(
    "moment",
    ["imports", "graphs", *(pytest.param(each, marks=pytest.mark.slow) for each in list(MOMENTS)[2:])],
)
def test_ctrl_c(moment: str, small: Path, tmp_path: Path) -> None:
    process = export(small, tmp_path / "out")
    # The interpreter's own start is not ours. `main` has begun once it imports the wing's libraries.
    wait_for(process, lambda: "numpy" in Path(f"/proc/{process.pid}/maps").read_text())
    time.sleep(0.3)
    wait_for(process, lambda: MOMENTS[moment](tmp_path / "out.partial"))
    if moment.startswith("the child"):
        wait_for(process, lambda: len(family(process)) > 1)  # it, and multiprocessing's resource tracker
        time.sleep(0.3)
    children = family(process)
    os.killpg(process.pid, signal.SIGINT)
    status, *printed = finish(process)
    # Where an `exec` is interrupted (imports are full of them), `python -m` ends by the signal: 130 to shells as well.
    assert status in (130, -signal.SIGINT)
    assert all_gone(children)
    partial = tmp_path / "out.partial"
    kept = moment in KEPT or (moment == "weights" and partial.exists())  # as soon as one tensor is whole
    assert list(tmp_path.iterdir()) == ([partial] if kept else [])
    assert printed[0] == ""
    if kept:
        assert re.fullmatch(
            rf"hired-edge: interrupted: {partial} keeps \d+ MiB: the same command goes on from there; "
            r"to give up, remove it\n",
            printed[1],
        )
    else:
        assert printed[1] == "hired-edge: interrupted\n"


def said(out: Path) -> re.Pattern[str]:
    """What an export says in the end."""
    stages = r"graphs \d+, weights \d+, parity check \d+"
    peaks = r"peak memory \d\.\d\d GiB, of the parity check \d\.\d\d GiB"
    return re.compile(rf"{out}: exported and checked: \d\.\d\d GB in \d+ s \({stages}\); {peaks}\n")


def test_what_a_killed_export_left_is_cleaned_by_the_next_which_is_alone(
    small: Path, tmp_path: Path, capsys: Capture
) -> None:
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    killed = export(small, out)
    wait_for(killed, lambda: MOMENTS["weights"](partial))
    killed.kill()
    assert finish(killed)[0] == -signal.SIGKILL
    assert sorted(path.name for path in partial.iterdir()) == ["bundle", "journal", "lock"]
    more = partial / "bundle/more"
    more.write_text("left by a killed export")
    following = export(small, out)
    wait_for(following, lambda: not more.exists())
    line = refused(capsys, "export", small, out, *OPTIONS)
    assert line == f"another export to {out} is running; expected one at a time; wait for it, or name another OUT"
    status, stdout, stderr = finish(following)
    assert (status, stderr) == (0, "")
    assert said(out).fullmatch(stdout)
    assert list(tmp_path.iterdir()) == [out]
    Bundle.open(out)


@pytest.mark.parametrize(
    ("shape", "size", "stops_at", "written"),
    [
        ({}, 100, "language/model.onnx.data", []),
        ({}, 300_000, "language/model.onnx.data", []),
        (GRAPHS, 22_000, "vision/model.onnx", ["language/model.onnx", "vision/model.onnx.data"]),
    ],
)
def test_a_disk_that_fills(
    shape: dict[str, Any],
    size: int,
    stops_at: str,
    written: list[str],
    bundles: Bundles,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exporter, "language_graph", traced_language)
    monkeypatch.setattr(exporter, "vision_graph", traced_vision)
    seen = watch_the_end(monkeypatch)
    checkpoint = bundles.checkpoint("next-llama")
    if shape:
        checkpoint = write_checkpoint(tmp_path_factory.mktemp("shaped") / "checkpoint", **shape)
    with largest_file(size):
        line = refused(capsys, "export", checkpoint, tmp_path / "out", *OPTIONS)
    assert line.startswith("the disk filled while writing (File too large); expected about ")
    assert seen[stops_at] <= size
    assert set(written) <= set(seen)
    assert "manifest.json" not in seen
    assert list(tmp_path.iterdir()) == []


def watch_the_end(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The files, with their sizes, that were there when the partial folder was removed."""
    seen: dict[str, int] = {}
    remove = shutil.rmtree

    def watched(folder: Path, *arguments: Any, **options: Any) -> None:
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        seen.update({path.relative_to(folder).as_posix(): path.stat().st_size for path in files})
        remove(folder, *arguments, **options)

    monkeypatch.setattr(shutil, "rmtree", watched)
    return seen


@pytest.mark.slow
def test_a_disk_that_fills_in_the_parity_check(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint", **GOLDEN)
    with largest_file(1_000_000):  # the golden pictures take 2.7 MB; every child process inherits the limit
        process = export(checkpoint, tmp_path / "out")
    wait_for(process, lambda: MOMENTS["the parity check"](tmp_path / "out.partial"))
    line = check_refusal(*finish(process))
    assert line.startswith("the disk filled while writing (File too large); expected about ")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


DIED = ExportError("the child died", expected="it to live", fix="try again")


@pytest.mark.parametrize(
    ("function", "argument", "error", "message"),
    [
        (refuse, Path("weights"), CheckpointError, "weights is bad; expected a good one; pass another"),
        (fill, Path("big"), OSError, "File too large"),
        (os._exit, 0, ExportError, "the child died"),
        (signal.raise_signal, signal.SIGKILL, ExportError, "the child died"),
    ],
)
def test_what_goes_wrong_in_a_child(
    function: Callable[[Any], object],
    argument: Any,
    error: type[Exception],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        child.call(function, argument, died=lambda status: DIED)


def test_a_graph_that_cannot_be_made_leaves_nothing(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(shape: DecoderShape, dtype: torch.dtype) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(exporter, "language_graph", broken)
    with pytest.raises(ZeroDivisionError):
        exporter.export(small, tmp_path / "out", exporter.ExportOptions(progress=False))
    assert list(tmp_path.iterdir()) == []
