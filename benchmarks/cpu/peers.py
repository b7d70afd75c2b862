"""The peers' environment: llama-cpp-python and gguf from PyPI, in a folder of their own.

PyPI has llama-cpp-python as sources: they are compiled for this processor (GGML_NATIVE), ten minutes on two cores. It
is done once. A peer that cannot be installed is named, and left out of the comparison.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.cpu.results import LLAMA
from hired_edge.errors import HiredEdgeError
from hired_edge.planner.shapes import ModelShape
from hired_runtime.whole import whole

PACKAGES = ("llama-cpp-python==0.3.36", "gguf==0.19.0")
"""Those that the committed figures are of."""
FLAGS = "-DGGML_NATIVE=ON"
INSTALLED = ".installed"


def python(folder: Path) -> str:
    """The interpreter of the environment in `folder`, which is made if it is not there.

    Raises:
        HiredEdgeError: it cannot be made; what the installer said last.
    """
    found = folder / "bin/python"
    done = folder / INSTALLED
    wanted = " ".join((*PACKAGES, FLAGS))
    if not done.exists() or done.read_text() != wanted:
        print(f"Compiling llama.cpp into {folder}: ten minutes on two cores, once ...", file=sys.stderr)
        _call([sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder)], {})
        pip = [sys.executable, "-m", "pip", "--python", str(found), "install", "--disable-pip-version-check", "-q"]
        _call([*pip, "numpy", *PACKAGES], {"CMAKE_ARGS": FLAGS})
        with whole(done) as partial:
            partial.write_text(wanted)
    return str(found)


def found(folder: Path, without: bool) -> tuple[str | None, list[str]]:
    """The interpreter with llama.cpp; or None, and why."""
    if without:
        return None, [f"{LLAMA} (not asked for)"]
    try:
        return python(folder), []
    except HiredEdgeError as error:
        print(f"{LLAMA} is left out: {error}", file=sys.stderr)
        return None, [f"{LLAMA} (it cannot be installed: {error.got})"]


def write_gguf(interpreter: str, out: Path, model: ModelShape, layers: int) -> None:
    """A file of the text model's shape with so many layers; nothing is done where it is there."""
    if out.exists():
        return
    text = model.text
    shape = {
        "layers": layers,
        "hidden": text.hidden_size,
        "intermediate": text.intermediate_size,
        "heads": text.heads,
        "kv_heads": text.kv_heads,
        "head_dim": text.head_dim,
        "vocabulary": text.vocab_size,
        "positions": text.positions,
    }
    with whole(out) as partial:
        run(interpreter, "benchmarks.cpu.gguf_file", str(partial), json.dumps(shape))


def run(interpreter: str, module: str, *arguments: str) -> None:
    """Runs a module of this repository in the peers' environment.

    Raises:
        HiredEdgeError: it failed.
    """
    root = Path(__file__).resolve().parents[2]
    _call([interpreter, "-m", module, *arguments], {"PYTHONPATH": str(root)})


def _call(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        words = [line.strip() for line in done.stdout.splitlines() if line.strip()] or ["nothing"]
        raise HiredEdgeError(
            f"{Path(command[0]).name} {' '.join(command[1:3])} ended with status {done.returncode} ({words[-1][:200]})",
            expected="the peers' environment: a C++ compiler, and PyPI within reach",
            fix="install a compiler (apt install build-essential), or pass --without llama.cpp",
        )
