"""How the device's commands start and end as processes: Ctrl-C, imports, a stdout that is closed, full or not read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from hired_edge import cli
from tests.tiny.commands import Capture, check_refusal, finish, slow_steps, start
from tests.tiny.processes import PATIENCE_S

BUNDLE = Path(__file__).parents[1] / "golden/bundle"
PROMPT = ("--prompt", "What is shown in this picture?")


def test_ctrl_c_while_an_answer_is_streamed(picture: Path) -> None:
    arguments = ("run", BUNDLE, "--image", picture, *PROMPT, "--stream")
    process = start(*arguments, options=["-c", slow_steps(0.2)])
    assert process.stdout is not None
    process.stdout.read(1)  # it has begun
    os.killpg(process.pid, signal.SIGINT)
    status, _, stderr = finish(process)
    assert (status, stderr) == (130, "hired-edge: interrupted\n")


def test_ctrl_c_in_a_destructor_is_not_lost(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    class Interrupted:
        def __del__(self) -> None:
            raise KeyboardInterrupt

    def work(argv: list[str]) -> int:
        Interrupted()  # Python prints and forgets what a destructor raises
        time.sleep(30)
        return 0

    monkeypatch.setattr(cli, "_run", work)
    begin = time.monotonic()
    assert cli.main(["run"]) == 130
    assert time.monotonic() - begin < 10
    assert capsys.readouterr().err == "hired-edge: interrupted\n"


def test_a_closed_stdout_is_no_error(picture: Path) -> None:
    command = f"exec {sys.executable} -m hired_edge inspect {BUNDLE} >&-"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, env=environment(), timeout=PATIENCE_S)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("options", [["--stream"], []])
def test_a_stdout_that_is_not_utf8_gets_escapes(options: list[str]) -> None:
    def answer(encoding: str) -> str:
        command = [sys.executable, "-m", "hired_edge", "run", str(BUNDLE), *PROMPT, *options]
        variables = {**environment(), "PYTHONIOENCODING": encoding}
        result = subprocess.run(command, capture_output=True, env=variables, timeout=PATIENCE_S)
        assert result.returncode == 0, result.stderr
        return result.stdout.decode(encoding)

    whole, escaped = answer("utf-8"), answer("ascii")
    assert not whole.isascii()
    assert escaped == whole.encode("ascii", "backslashreplace").decode()


@pytest.mark.parametrize("arguments", [("inspect",), ("run", "--stream", *PROMPT)])
def test_a_full_stdout_is_one_line(arguments: tuple[str, ...]) -> None:
    command, *options = arguments
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "hired_edge", command, str(BUNDLE), *options],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            timeout=PATIENCE_S,
        )
    assert "the disk is full" in check_refusal(result.returncode, "", result.stderr)


@pytest.mark.parametrize("options", [["--stream"], ["--json"], []])
def test_a_reader_that_has_gone_away_is_no_error(options: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(
        [sys.executable, "-m", "hired_edge", "run", str(BUNDLE), *PROMPT, *options],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        timeout=PATIENCE_S,
    )
    os.close(writing)
    assert result.returncode == 141
    assert "Traceback" not in result.stderr


def test_help_is_immediate() -> None:
    def seconds() -> float:
        """Of processor time: other tests run beside this one."""
        command = [sys.executable, "-m", "hired_edge", "--help"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment())
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        return used.ru_utime + used.ru_stime

    assert min(seconds() for _ in range(5)) < 0.3


def test_run_imports_its_dependencies_and_nothing_else(picture: Path) -> None:
    arguments = ("run", BUNDLE, "--image", picture, *PROMPT, "--max-new-tokens", 2, "--json")
    status, _, stderr = finish(start(*arguments, options=["-X", "importtime"]))
    assert status == 0
    lines = [line for line in stderr.splitlines() if line.startswith("import time:")]
    modules = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
    installed = packages_distributions()
    distributions = {name.lower() for module in modules for name in installed.get(module, [])}
    allowed = {"hired-edge", "numpy", "pillow", "tokenizers", "jinja2", "markupsafe", "onnxruntime"}
    assert distributions - {"setuptools", "distutils-precedence"} <= allowed
    assert {"numpy", "onnxruntime", "tokenizers"} <= modules


def environment() -> dict[str, str]:
    """PYTHONUNBUFFERED would have argparse swallow what is tested here."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
