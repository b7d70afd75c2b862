"""The `hired-edge` command, tried on sub-commands of a fake wing; which real ones exist is no concern of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import hired_edge
from hired_edge import cli
from hired_edge.errors import HiredEdgeError
from tests.tiny.processes import PATIENCE_S

COMMAND = """
from hired_edge.errors import InputError

help: str = "does as it is told, to 100 %"

def add_arguments(parser):
    parser.add_argument("--status", type=int)
    parser.add_argument("--raise", dest="error")

def run(args):
    if args.error:
        exec(args.error)
    return args.status
"""

AddCommand = Callable[[str, str], None]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on sys.path with an installed distribution `fake-wing` that registers `fake-command`."""
    (tmp_path / "fake_wing").mkdir()
    (tmp_path / "fake_wing" / "__init__.py").write_text("raise RuntimeError('a parent package is not imported')")
    (tmp_path / "fake_command.py").write_text(COMMAND)
    metadata = tmp_path / "fake_wing-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-wing\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{cli.GROUP}]\nfake-command = fake_command\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "fake_command", raising=False)
    return tmp_path


@pytest.fixture
def add_command(site: Path) -> AddCommand:
    """Registers one more command, `name = module`, of the same distribution."""

    def add(name: str, module: str) -> None:
        with (site / "fake_wing-1.0.dist-info" / "entry_points.txt").open("a") as file:
            file.write(f"{name} = {module}\n")

    return add


def exit_status(*argv: str) -> int:
    """What the process would exit with: argparse exits by itself, everything else returns."""
    try:
        return cli.main(argv)
    except SystemExit as error:
        return int(error.code or 0)


def one_line(captured: str) -> str:
    assert captured.startswith("hired-edge: ")
    assert captured.endswith("\n")
    assert captured.count("\n") == 1
    return captured.rstrip("\n")


@pytest.mark.usefixtures("site")
def test_the_chosen_command_runs_and_gives_the_exit_status() -> None:
    assert cli.main(["fake-command"]) == 0
    assert cli.main(["fake-command", "--status", "7"]) == 7


@pytest.mark.usefixtures("site")
def test_help_lists_a_command_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("--help") == 0
    listing = capsys.readouterr().out
    assert "fake-command" in listing
    assert "does as it is told, to 100 %" in listing


@pytest.mark.usefixtures("site")
def test_help_of_a_command_shows_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("fake-command", "--help") == 0
    shown = capsys.readouterr().out
    assert "does as it is told, to 100 %" in shown
    assert "--status" in shown


def test_help_imports_no_command(site: Path, add_command: AddCommand, capsys: pytest.CaptureFixture[str]) -> None:
    (site / "fake_wing" / "heavy.py").write_text("help = 'is heavy'\nraise RuntimeError('imported')")
    add_command("fake-heavy", "fake_wing.heavy")
    assert exit_status("--help") == 0
    assert "is heavy" in capsys.readouterr().out


def test_a_command_whose_module_is_gone_does_not_hide_the_others(
    add_command: AddCommand, capsys: pytest.CaptureFixture[str]
) -> None:
    add_command("fake-gone", "fake_wing.nowhere.gone")
    assert exit_status("--help") == 0
    listing = capsys.readouterr().out
    assert "fake-gone" in listing
    assert "fake-command" in listing


@pytest.mark.parametrize(("module", "extra"), cli.EXTRAS.items())
@pytest.mark.parametrize("when", ["import", "run"])
def test_a_missing_extra_is_named(
    module: str,
    extra: str,
    when: str,
    site: Path,
    add_command: AddCommand,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "fake_needy", raising=False)
    (site / "fake_needy.py").write_text(f"import {module}\n{COMMAND}")
    add_command("fake-needy", "fake_needy")
    argv = ["fake-needy"] if when == "import" else ["fake-command", "--raise", f"import {module}"]
    assert cli.main(argv) == 2
    assert one_line(capsys.readouterr().err) == (
        f"hired-edge: error: no module named {module}; expected the {extra!r} extra; "
        f"run: pip install 'hired-edge[{extra}]'"
    )


@pytest.mark.usefixtures("site")
def test_a_missing_module_of_our_own_is_a_bug() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"hired_edge\.nowhere"):
        cli.main(["fake-command", "--raise", "import hired_edge.nowhere"])


@pytest.mark.usefixtures("site")
def test_a_users_error_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    error = "raise InputError('a.jpg is empty (0\\nbytes)', expected='a picture', fix='pass another --image')"
    assert cli.main(["fake-command", "--raise", error]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    expected = "hired-edge: error: a.jpg is empty (0 bytes); expected a picture; pass another --image"
    assert one_line(captured.err) == expected


@pytest.mark.usefixtures("site")
def test_ctrl_c_is_one_line_and_status_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fake-command", "--raise", "raise KeyboardInterrupt"]) == 130
    assert one_line(capsys.readouterr().err) == "hired-edge: interrupted"


@pytest.mark.usefixtures("site")
def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        cli.main(["fake-command", "--raise", "1 / 0"])


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize(
    ("argv", "got", "command"),
    [
        ([], "the following arguments are required: COMMAND", "hired-edge"),
        (["nonsense"], "argument COMMAND: invalid choice: 'nonsense'", "hired-edge"),
        (["--nonsense"], "the following arguments are required: COMMAND", "hired-edge"),
        (["fake-command", "--nonsense\n"], "unrecognized arguments: --nonsense", "hired-edge fake-command"),
        (["fake-command", "--stat", "1"], "unrecognized arguments: --stat 1", "hired-edge fake-command"),
        (["--nonsense", "fake-command"], "unrecognized arguments: --nonsense", "hired-edge"),
        (["--", "fake-command"], "", "hired-edge"),  # Pythons differ in what they say of it
        (["fake-command", "--status"], "argument --status: expected one argument", "hired-edge fake-command"),
        (["fake-command", "--status", "x"], "argument --status: invalid int value: 'x'", "hired-edge fake-command"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_status_2(
    argv: list[str], got: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    line = one_line(captured.err)
    assert line.startswith(f"hired-edge: error: {got}")
    assert line.endswith(f"; expected arguments of {command}; see {command} --help")


def test_an_uninstalled_tree_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli, "GROUP", "hired_edge.no_such_group")
    assert cli.main(["run"]) == 2
    assert "pip install -e" in one_line(capsys.readouterr().err)


def python_m(*argv: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment.pop("PYTHONUNBUFFERED", None)  # unbuffered, argparse itself swallows a broken pipe
    return subprocess.run(
        [sys.executable, "-m", "hired_edge", *argv],
        env=environment,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE_S,
    )


@pytest.mark.usefixtures("site")
def test_python_m_is_the_same_command() -> None:
    result = python_m("--version")
    assert result.stdout == f"hired-edge {hired_edge.__version__}\n"
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("argv", [["--help"], ["fake-command", "--raise", "print('x' * 1_000_000)"]])
def test_a_reader_that_has_gone_away_is_no_error(argv: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        result = python_m(*argv, stdout=writing)
    finally:
        os.close(writing)
    assert (result.returncode, result.stderr) == (141, "")


def test_every_error_says_three_things() -> None:
    error = HiredEdgeError("got this", expected="that", fix="do so")
    assert str(error) == "got this; expected that; do so"
    assert (error.got, error.expected, error.fix) == ("got this", "that", "do so")
