"""Whatever ONNX Runtime raises, as one BundleError."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import onnxruntime as ort

from hired_edge.errors import BundleError, OutOfMemoryError

_NO_MEMORY = re.compile(r"bad_alloc|bad allocation|[Ff]ailed to allocate memory|out of memory|ALLOC_FAILED")
"""As its arena, the C++ library, CUDA and cuBLAS put it."""


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
        if _NO_MEMORY.search(got):
            fix = "open with a smaller --visual-tokens or fewer rows, or end other programs; see `hired-edge plan`"
            raise OutOfMemoryError(got, expected="memory for it", fix=fix) from None
        raise BundleError(got, expected=expected, fix=fix) from None
