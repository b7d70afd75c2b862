"""Is exactly one ONNX Runtime installed? Read from package metadata; no engine is imported.

It does not know whether the installed one works on this machine: opening a session shows that.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from hired_edge.errors import HiredEdgeError, MissingExtraError

# Both distributions install the package `onnxruntime`: the later one overwrites files of the earlier.
DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")


def check_onnxruntime() -> None:
    """Raises MissingExtraError if ONNX Runtime is absent, HiredEdgeError if two distributions of it are mixed."""
    installed = [f"{name} {found}" for name in DISTRIBUTIONS if (found := _version(name)) is not None]
    if len(installed) > 1:
        raise HiredEdgeError(
            f"{' and '.join(installed)} are both installed and overwrite each other's files",
            expected="one of them",
            fix=f"run: pip uninstall -y {' '.join(DISTRIBUTIONS)}; then: pip install 'hired-edge[cpu]', or [gpu]",
        )
    # By module, not by distribution: a board's own build may go by another name.
    if find_spec("onnxruntime") is None:
        raise MissingExtraError(
            "no module named onnxruntime",
            expected="the 'cpu' extra, or 'gpu' for an NVIDIA card",
            fix="run: pip install 'hired-edge[cpu]'",
        )


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
