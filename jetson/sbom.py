"""Writes the bill of materials (CycloneDX, JSON) of a board's Python environment, beside the wheels that make it up.

    python jetson/sbom.py jp7       # of jetson/wheels/jp7, which wheels.py has filled: jetson/wheels/jp7/sbom.cdx.json

The wheels are unpacked into an empty environment, so what is listed is what install.sh installs on the board, whatever
this machine is; `cyclonedx-py environment` reads it and holds the result against CycloneDX's own schema. install.sh
puts the file into the environment, and so into the image. Needs cyclonedx-bom (the extra `dev`). It does not list what
comes with JetPack or the base image: TensorRT, CUDA, Ubuntu's packages.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAME = "sbom.cdx.json"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python jetson/sbom.py", description="write a board's bill of materials")
    parser.add_argument("system", choices=sorted(path.stem for path in HERE.glob("*.conf")))
    parser.add_argument("--wheels", type=Path, metavar="FOLDER", help="(default: jetson/wheels/SYSTEM)")
    args = parser.parse_args(arguments)
    folder: Path = args.wheels or HERE / "wheels" / args.system
    wheels = sorted(folder.glob("*.whl"))
    if not any(wheel.name.startswith("hired_edge-") for wheel in wheels):
        raise SystemExit(
            f"sbom.py: error: no wheel of hired-edge in {folder}; expected a folder that wheels.py has filled; "
            f"run: python jetson/wheels.py {args.system}"
        )
    out = folder / NAME
    with tempfile.TemporaryDirectory(prefix="sbom-") as place:
        describe(wheels, Path(place) / "environment", out)
    print(f"{len(wheels)} packages: {out}")


def describe(wheels: Sequence[Path], environment: Path, out: Path) -> None:
    """Unpacks the wheels and has cyclonedx-py list them.

    Args:
        environment: a new folder, in one that is thrown away.
        out: written whole, or not at all.
    """
    venv.create(environment, symlinks=True)
    site = sysconfig.get_path("purelib", "venv", {"base": str(environment), "platbase": str(environment)})
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    options = ["--pyproject", HERE.parent / "pyproject.toml", "--spec-version", "1.6", "--output-format", "JSON"]
    command = [sys.executable, "-m", "cyclonedx_py", "environment", environment / "bin/python", *options]
    written = environment.parent / NAME
    command += ["--output-reproducible", "--validate", "--output-file", written]
    if subprocess.run(list(map(str, command))).returncode:
        raise SystemExit(
            "sbom.py: error: cyclonedx-py has failed; what it said stands above; is cyclonedx-bom installed?"
        )
    partial = out.with_name(f".{NAME}.partial")
    shutil.copyfile(written, partial)
    partial.replace(out)


if __name__ == "__main__":
    main()
