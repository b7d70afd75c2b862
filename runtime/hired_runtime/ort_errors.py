"""Whatever ONNX Runtime raises, as one BundleError."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import onnxruntime as ort

from hired_edge.errors import BundleError


@contextmanager
def reported(
    what: str = "run a graph",
    expected: str = "graphs that are as the manifest says, and memory for them",
    fix: str = "check the bundle with `hired-edge verify`, or export it again",
) -> Iterator[None]:
    """Turns whatever is raised inside into one BundleError."""
    try:
        yield
    except Exception as error:  # its classes are generated and share no public base
        got = f"onnxruntime {ort.__version__} cannot {what} ({' '.join(str(error).split())[:200]})"
        raise BundleError(got, expected=expected, fix=fix) from None
