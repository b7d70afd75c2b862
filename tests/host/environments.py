"""Clean virtual environments for tests of the built wheel, kept in .venv-tests/ between runs.

An environment is known by its requirements: change them and a new one is made. The wheel is installed anew where its
bytes are others, and only there: another test process may be running commands of the same environment.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tomli

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".venv-tests"


@functools.cache
def pyproject() -> dict[str, Any]:
    return tomli.loads((ROOT / "pyproject.toml").read_text())


def pins(*distributions: str) -> list[str]:
    """The lines of constraints.txt about `distributions`, environment markers included."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [line for line in lines if line.split("==")[0] in distributions]
    assert {line.split("==")[0] for line in found} == set(distributions)
    return found


def run(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a command that sees nothing of this process's source tree, pytest or coverage settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "VIRTUAL"))}
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=kept, capture_output=True, text=True, timeout=900
    )


def checked(*command: str | Path, cwd: Path | None = None) -> str:
    result = run(*command, cwd=cwd)
    assert result.returncode == 0, f"{' '.join(map(str, command))}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@functools.cache
def wheel() -> Path:
    """The wheel of the working tree, built once per test process."""
    folder = Path(tempfile.mkdtemp(prefix="hired-edge-wheel-"))
    atexit.register(shutil.rmtree, folder)
    checked(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


def environment(
    name: str, requirements: Sequence[str], interpreter: str = sys.executable, *, alone: Sequence[str] = ()
) -> Path:
    """The interpreter of a virtual environment that holds `requirements` and the wheel, and nothing else.

    Args:
        alone: requirements that are installed without what they depend on.
    """
    version = checked(interpreter, "-c", "import sys; print(sys.version, sys.base_prefix)")
    key = hashlib.sha256("\n".join([version, *sorted(requirements), *sorted(alone)]).encode()).hexdigest()[:12]
    folder = FOLDER / f"{name}-{key}"
    python = folder / "bin" / "python"
    with _lock(name):
        if not (folder / "complete").exists():
            for stale in FOLDER.glob(f"{name}-*"):
                shutil.rmtree(stale)
            checked(interpreter, "-m", "venv", folder)
            _pip_install(python, "--only-binary", ":all:", *requirements)
            if alone:
                _pip_install(python, "--only-binary", ":all:", "--no-deps", *alone)
            (folder / "complete").touch()
        built, installed = hashlib.sha256(wheel().read_bytes()).hexdigest(), folder / "wheel"
        if not installed.exists() or installed.read_text() != built:
            installed.unlink(missing_ok=True)
            _pip_install(python, "--no-deps", "--force-reinstall", str(wheel()))
            installed.write_text(built)
    return python


def copy_device_tests(folder: Path) -> Path:
    """Copies what tests/device needs, and none of the packages that it tests, to `folder`."""
    shutil.copy(ROOT / "pyproject.toml", folder)
    ignore = shutil.ignore_patterns("host", "__pycache__", ".*", "output", "training", "checkpoint")
    for name in ("tests", "demo"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    return folder


def run_device_tests(python: Path, folder: Path, *names: str) -> str:
    """Runs tests/device, or these files of it, with `python` in a copy at `folder`; gives pytest's output."""
    copy = copy_device_tests(folder)
    where = checked(python, "-c", "import hired_edge; print(hired_edge.__file__)", cwd=copy)
    assert where.startswith(str(python.parents[1])), f"not the installed wheel but {where}"
    # A thousand answers of the demonstration model say nothing of versions that other tests' tokens do not say.
    every = ("tests/device", "--ignore=tests/device/test_demo_accuracy.py")
    files = [f"tests/device/{name}" for name in names] or every
    return checked(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files, cwd=copy)


def python_310() -> str:
    """A Python 3.10 that runs, or this interpreter if none is at hand."""
    for candidate in (shutil.which("python3.10"), *Path.home().glob(".pyenv/versions/3.10.*/bin/python3.10")):
        if candidate is None:
            continue
        result = run(candidate, "-c", "import sys; print(sys.version_info[:2] == (3, 10))")
        if result.stdout.strip() == "True":
            return str(candidate)
    return sys.executable


def _pip_install(python: Path, *arguments: str) -> None:
    checked(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *arguments)


@contextlib.contextmanager
def _lock(name: str) -> Iterator[None]:
    """Two test processes may want the same environment at once."""
    FOLDER.mkdir(exist_ok=True)
    with open(FOLDER / f"{name}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
