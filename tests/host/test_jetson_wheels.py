"""jetson/wheels.py decides what a board needs: on wheels made here, without a network."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from jetson import wheels
from tests.host.environments import ROOT

ARM = "manylinux_2_28_aarch64"


def make(folder: Path, name: str, *requires: str, version: str = "1.0", tag: str = "py3-none-any") -> None:
    """A wheel that holds its metadata alone."""
    metadata = [
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}",
        *(f"Requires-Dist: {one}" for one in requires),
    ]
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-{tag}.whl", "w") as archive:
        archive.writestr(f"{info}/METADATA", "\n".join([*metadata, "\n"]))
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is all that pip knows."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def fetched(tmp_path: Path, wanted: list[str], python: str = "3.10", constraints: tuple[str, ...] = ()) -> list[str]:
    out = tmp_path / "out"
    out.mkdir()
    wheels.fetch(wanted, out, python, constraints)
    return sorted(path.name.partition("-")[0] for path in out.iterdir())


def test_markers_are_the_boards_not_this_machines(index: Path, tmp_path: Path) -> None:
    make(
        index,
        "top",
        "old; python_version < '3.11'",
        "new; python_version >= '3.11'",
        "intel; platform_machine == 'x86_64'",
        "windows; sys_platform == 'win32'",
    )
    make(index, "old", "deep")
    make(index, "deep")
    assert fetched(tmp_path, ["top"]) == ["deep", "old", "top"]


def test_extras_are_followed(index: Path, tmp_path: Path) -> None:
    make(index, "top", "engine; extra == 'cpu'", "other; extra == 'gpu'", "middle", "middle[fast]")
    make(index, "engine", "top")
    make(index, "middle", "quick; extra == 'fast'")
    make(index, "quick")
    assert fetched(tmp_path, ["top[cpu]"]) == ["engine", "middle", "quick", "top"]


def test_the_wheel_is_the_boards_and_the_constraints_apply_to_its_python(index: Path, tmp_path: Path) -> None:
    for version in ("1.0", "2.0", "3.0"):
        for tag in (f"cp310-cp310-{ARM}", f"cp312-cp312-{ARM}", "cp310-cp310-manylinux_2_28_x86_64"):
            make(index, "compiled", version=version, tag=tag)
    constraints = ("# comment", "", "compiled==2.0; python_version < '3.11'", "compiled==1.0; python_version >= '3.11'")
    fetched(tmp_path, ["compiled"], "3.10", constraints)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"compiled-2.0-cp310-cp310-{ARM}.whl"]


def test_a_constraint_that_breaks_a_requirement_is_refused(index: Path, tmp_path: Path) -> None:
    make(index, "top", "base>=2")
    make(index, "base", version="1.0")
    with pytest.raises(SystemExit, match=r"base 1\.0; expected base>=2; mend constraints\.txt"):
        fetched(tmp_path, ["top"], constraints=("base==1.0",))


def test_what_is_asked_for_in_a_version_of_its_own_is_not_constrained(index: Path, tmp_path: Path) -> None:
    for version in ("12.8", "12.9", "13.4"):
        make(index, "bindings", version=version)
    fetched(tmp_path, ["bindings==12.*"], constraints=("bindings==13.4",))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["bindings-12.9-py3-none-any.whl"]


def test_a_package_without_a_wheel_for_the_board_is_refused(index: Path, tmp_path: Path) -> None:
    make(index, "compiled", tag="cp310-cp310-manylinux_2_28_x86_64")
    with pytest.raises(SystemExit, match="pip download has failed"):
        fetched(tmp_path, ["compiled"])


def test_the_settings_name_what_the_scripts_use() -> None:
    for system in ("jp6", "jp7"):
        settings = wheels.read_settings(ROOT / f"jetson/{system}.conf")
        assert set(settings) == {"L4T_MAJOR", "BASE_IMAGE", "PYTHON_VERSION", "CUDA_MAJOR"}
