"""The built wheel in clean environments: what it holds, what it says without extras, and tests/device on it."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest

from hired_edge.cli import EXTRAS
from tests.host import environments
from tests.host.environments import checked, environment, pins, run, run_device_tests

PROJECT = environments.pyproject()["project"]
COMMANDS = PROJECT["entry-points"]["hired_edge.commands"]


@pytest.fixture(scope="module")
def bare() -> Path:
    """The interpreter of an environment with the base dependencies: no engine, no torch, no pytest."""
    return environment("bare", PROJECT["dependencies"])


def test_the_wheel_holds_three_typed_packages_and_nothing_else() -> None:
    with zipfile.ZipFile(environments.wheel()) as archive:
        names = archive.namelist()
    packages = {"hired_edge", "hired_export", "hired_runtime"}
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == packages
    assert {f"{package}/py.typed" for package in packages} <= set(names)
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_help_lists_every_command_without_extras(bare: Path) -> None:
    lines = checked(bare.with_name("hired-edge"), "--help").splitlines()
    for command in COMMANDS:
        (line,) = [line.split(maxsplit=1) for line in lines if line.split()[:1] == [command]]
        assert len(line) == 2, f"{command} has no line of help"


def test_each_commands_options_are_shown_without_extras(bare: Path) -> None:
    for command in COMMANDS:
        assert f"usage: hired-edge {command}" in checked(bare.with_name("hired-edge"), command, "--help")


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["run", "bundle", "--image", "picture.png", "--prompt", "What is this?"], "cpu"),
        (["eval", "bundle", "questions", "--report", "out"], "eval"),
        (["serve", "bundle"], "serve"),
        (["batch", "bundle", "requests.jsonl", "-o", "answers", "--ray", "local"], "ray"),
        (["sign", "bundle", "--key", "key"], "sign"),
        (["export", "checkpoint", "out", "--target", "cpu", "--visual-tokens", "20%"], "export"),
    ],
)
def test_a_missing_extra_is_named(arguments: list[str], extra: str, bare: Path) -> None:
    result = run(bare.with_name("hired-edge"), *arguments)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("hired-edge: error: no module named ")
    assert f"; expected the {extra!r} extra" in line
    assert line.endswith(f"run: pip install 'hired-edge[{extra}]'")


def test_the_extras_that_errors_name_exist() -> None:
    assert set(EXTRAS.values()) <= set(PROJECT["optional-dependencies"])


@pytest.fixture(scope="module")
def device() -> Path:
    """The interpreter of an environment with the CPU engine and today's versions, as on a board."""
    extras = PROJECT["optional-dependencies"]
    requirements = [*PROJECT["dependencies"], *extras["cpu"], *extras["eval"], *extras["serve"], *extras["sign"]]
    names = ("numpy", "pillow", "tokenizers", "jinja2", "onnxruntime", "matplotlib", "tqdm", "pytest", "hypothesis")
    others = ("starlette", "uvicorn", "prometheus-client", "openai", "bcrypt", "cffi", "cryptography")
    return environment("device", [*requirements, *pins(*names, *others)])


def test_the_commands_work_on_the_wheel_without_torch(device: Path, tmp_path: Path) -> None:
    for module in ("torch", "transformers", "onnx"):
        assert run(device, "-c", f"import {module}").returncode != 0
    print(run_device_tests(device, tmp_path, "test_boundary.py", "test_commands.py", "test_doctor.py", "test_demo.py"))


@pytest.mark.slow
def test_the_device_tests_pass_on_the_wheel_without_torch(device: Path, tmp_path: Path) -> None:
    print(run_device_tests(device, tmp_path))


def test_every_direct_dependency_is_pinned() -> None:
    extras = PROJECT["optional-dependencies"]
    requirements = [*PROJECT["dependencies"], *extras["cpu"], *extras["eval"], *extras["serve"], *extras["sign"]]
    requirements += [*extras["export"], *extras["dev"]]
    assert pins(*{re.split(r"[>\[]", requirement)[0] for requirement in requirements})
