"""Fetches every wheel that install.sh needs on a board, on any machine with a network.

    python jetson/wheels.py jp7     # hired-edge, built from this tree, and all that it needs, in jetson/wheels/jp7

The versions are those of constraints.txt where it names one. pip decides which file fits the board; which packages are
needed is decided here, because pip evaluates the environment markers of a foreign platform for the machine it runs on.
Needs pip and packaging. Knows nothing of JetPack but what its .conf file says: Python's version and CUDA's.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from email.parser import HeaderParser
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
GLIBC = range(17, 29)
"""manylinux_2_17 ... manylinux_2_28: older than either JetPack's glibc (2.35 and 2.39)."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python jetson/wheels.py", description="fetch the wheels that a board needs")
    parser.add_argument("system", choices=sorted(path.stem for path in HERE.glob("*.conf")))
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="(default: jetson/wheels/SYSTEM)")
    parser.add_argument("--also", nargs="*", default=[], metavar="PACKAGE", help="other packages, for tests")
    args = parser.parse_args()
    settings = read_settings(HERE / f"{args.system}.conf")
    out: Path = args.out or HERE / "wheels" / args.system
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        isolated = [] if find_spec("hatchling") is None else ["--no-build-isolation"]
        _pip("wheel", "--no-deps", *isolated, "--wheel-dir", partial, ROOT)
        (own,) = partial.glob("*.whl")
        distribution = f"{own.name.partition('-')[0]}[cpu,serve,sign]"
        wanted = [distribution, "pip", f"cuda-bindings=={settings['CUDA_MAJOR']}.*", *args.also]
        fetch(wanted, partial, settings["PYTHON_VERSION"], (ROOT / "constraints.txt").read_text().splitlines())
        shutil.rmtree(out, ignore_errors=True)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"{len(list(out.iterdir()))} wheels, {unpacked_mb(out.glob('*.whl')):.0f} MB unpacked: {out}")


def read_settings(path: Path) -> dict[str, str]:
    """The KEY=VALUE lines of a .conf file, which the shell scripts source."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {key: value for key, _, value in (line.partition("=") for line in lines)}


def fetch(wanted: Iterable[str], folder: Path, python_version: str, constraints: Iterable[str]) -> None:
    """Downloads `wanted` and all that they need to `folder`, for CPython `python_version` on aarch64 Linux.

    Wheels that are in `folder` already are used as they are. Ends the program if a constraint and a requirement
    disagree.
    """
    environment = markers(python_version)
    pending = [Requirement(text) for text in wanted]
    pins = {name: pin for name, pin in (_pin(line, environment) for line in constraints) if name}
    for requirement in pending:
        if requirement.specifier:  # that of CUDA's bindings goes by the board
            pins.pop(canonicalize_name(requirement.name), None)
    needed: dict[str, list[Requirement]] = {}
    wheels = {parse_wheel_filename(path.name)[0]: path for path in folder.glob("*.whl")}
    while pending:
        missing = {}
        for requirement in pending:
            name = canonicalize_name(requirement.name)
            needed.setdefault(name, []).append(requirement)
            if name not in wheels:
                missing[name] = f"{name}{pins.get(name, requirement.specifier)}"
        if missing:
            _download(missing.values(), folder, python_version)
            wheels = {parse_wheel_filename(path.name)[0]: path for path in folder.glob("*.whl")}
        asked, pending = pending, []
        for requirement in asked:
            known = needed[canonicalize_name(requirement.name)]
            # With an extra it says more than without; else it was read when it was first asked for.
            if requirement.extras or known[0] is requirement:
                pending += _requirements(wheels[canonicalize_name(requirement.name)], requirement.extras, environment)
        pending = [one for one in pending if _is_news(one, needed)]
    for name, requirements in needed.items():
        version: Version = parse_wheel_filename(wheels[canonicalize_name(name)].name)[1]
        for requirement in requirements:
            if not requirement.specifier.contains(version, prereleases=True):
                raise SystemExit(f"wheels.py: error: {name} {version}; expected {requirement}; mend constraints.txt")


def markers(python_version: str) -> dict[str, str]:
    """The environment of CPython `python_version` on aarch64 Linux, as packaging's markers take it."""
    return {
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": "aarch64",
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{python_version}.0",
        "python_version": python_version,
        "sys_platform": "linux",
    }


def unpacked_mb(wheels: Iterable[Path]) -> float:
    """What is inside `wheels`, in MB (10^6 bytes), without the bytecode that pip adds when it installs them."""
    sizes = []
    for path in wheels:
        with zipfile.ZipFile(path) as archive:
            sizes += [member.file_size for member in archive.infolist()]
    return sum(sizes) / 1e6


def _pin(line: str, environment: dict[str, str]) -> tuple[str, str]:
    """Name and specifier of a line of constraints.txt; two empty strings where it does not apply."""
    if not line or line.startswith("#"):
        return "", ""
    requirement = Requirement(line)
    applies = requirement.marker is None or requirement.marker.evaluate(environment)
    return (canonicalize_name(requirement.name), str(requirement.specifier)) if applies else ("", "")


def _requirements(wheel: Path, extras: set[str], environment: dict[str, str]) -> list[Requirement]:
    """What the metadata of `wheel` require with `extras`."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith(".dist-info/METADATA")]
        metadata = HeaderParser().parsestr(archive.read(name).decode())
    requirements = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    kinds = [{**environment, "extra": extra} for extra in (*sorted(extras), "")]
    return [one for one in requirements if one.marker is None or any(map(one.marker.evaluate, kinds))]


def _is_news(requirement: Requirement, needed: dict[str, list[Requirement]]) -> bool:
    known = needed.get(canonicalize_name(requirement.name), [])
    return all((one.specifier, one.extras) != (requirement.specifier, requirement.extras) for one in known)


def _download(requirements: Iterable[str], folder: Path, python_version: str) -> None:
    platforms = ["manylinux2014_aarch64", *(f"manylinux_2_{minor}_aarch64" for minor in GLIBC)]
    tags = [part for platform in platforms for part in ("--platform", platform)]
    options = ["--no-deps", "--only-binary=:all:", "--implementation", "cp", "--python-version", python_version]
    _pip("download", *options, *tags, "--dest", folder, *requirements)


def _pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", *map(str, arguments), "--quiet", "--disable-pip-version-check"]
    if subprocess.run(command).returncode:
        raise SystemExit(f"wheels.py: error: pip {arguments[0]} has failed; what it said stands above")


if __name__ == "__main__":
    main()
