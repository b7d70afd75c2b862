"""What surrounds an engine build: its progress, Ctrl-C, and what an error leaves behind. With TensorRT-RTX, no GPU."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hired_edge.errors import BundleError
from hired_runtime.trt import module
from hired_runtime.trt.build_engine import BuildOptions, build_engine
from hired_runtime.trt.device import find_device
from tests.host.small_graphs import attention_graph, attention_profiles, write

LIBRARY = module.load("tensorrt_rtx")
SM = 86
DEVICE = find_device()
OPTIONS = BuildOptions(SM, DEVICE)


def left(tmp_path: Path) -> set[str]:
    return {path.name for path in tmp_path.iterdir()}


def test_progress_rises_and_is_told_from_the_first_step_on(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []
    onnx_file = write(attention_graph(2), tmp_path / "model.onnx")
    build_engine(
        LIBRARY, onnx_file, attention_profiles(2), tmp_path / "it.engine", OPTIONS, lambda *at: seen.append(at)
    )
    assert seen[0] == ("reading model.onnx", 0)
    percentages = [percent for _, percent in seen]
    assert percentages == sorted(percentages)
    assert percentages[-1] > 60
    assert len({phase for phase, _ in seen}) > 4


@pytest.mark.parametrize("after", [0, 3, 40])
def test_ctrl_c_stops_the_build_and_leaves_nothing(after: int, tmp_path: Path) -> None:
    """A real SIGINT at the n-th report of progress."""
    seen: list[int] = []

    def interrupt(phase: str, percent: int) -> None:
        seen.append(percent)
        if len(seen) == after + 1:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)  # so that the main thread has seen it before the next step is asked about

    onnx_file = write(attention_graph(2), tmp_path / "model.onnx")
    with pytest.raises(KeyboardInterrupt):
        build_engine(LIBRARY, onnx_file, attention_profiles(2), tmp_path / "it.engine", OPTIONS, interrupt)
    assert left(tmp_path) == {"model.onnx"}
    assert max(seen) < 100
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("build ")]


def test_an_error_keeps_no_builder_alive(tmp_path: Path) -> None:
    """Else the garbage collector destroys it later, and hangs where that is inside the next builder's logger."""
    builders: list[weakref.ref[Any]] = []

    class Recorded:
        def __getattr__(self, name: str) -> Any:
            return getattr(LIBRARY.trt, name)

        def Builder(self, logger: Any) -> Any:
            builder = LIBRARY.trt.Builder(logger)
            builders.append(weakref.ref(builder))
            return builder

    library, onnx_file = replace(LIBRARY, trt=Recorded()), tmp_path / "model.onnx"
    options = BuildOptions(SM, DEVICE, workspace=1024)
    gc.disable()
    try:
        for graph in (attention_graph(2), attention_graph(2, slots="m")):
            write(graph, onnx_file)
            with pytest.raises(BundleError) as error:
                build_engine(library, onnx_file, attention_profiles(2), tmp_path / "it.engine", options)
            assert builders.pop()() is None, error
    finally:
        gc.enable()


def test_an_error_of_the_progress_display_ends_the_build_and_is_not_lost(tmp_path: Path) -> None:
    def fail(phase: str, percent: int) -> None:
        if percent > 10:
            raise BrokenPipeError("nobody reads this")

    onnx_file = write(attention_graph(2), tmp_path / "model.onnx")
    with pytest.raises(BrokenPipeError, match="nobody reads this"):
        build_engine(LIBRARY, onnx_file, attention_profiles(2), tmp_path / "it.engine", OPTIONS, fail)
    assert left(tmp_path) == {"model.onnx"}


def test_a_log_that_the_disk_has_no_room_for_fails_no_build(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """TensorRT calls the logger, and prints an error that comes out of it, line by line."""
    (tmp_path / "log").symlink_to("/dev/full")
    onnx_file = write(attention_graph(2), tmp_path / "model.onnx")
    options = replace(OPTIONS, log_file=tmp_path / "log")
    build_engine(LIBRARY, onnx_file, attention_profiles(2), tmp_path / "it.engine", options)
    assert capfd.readouterr() == ("", "")
    assert left(tmp_path) == {"model.onnx", "log", "it.engine"}
