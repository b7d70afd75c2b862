"""Processes that stay loaded and are asked in turn, so that two engines are measured one after the other, again and
again, under the same conditions. A worker that waits computes nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from hired_edge.errors import HiredEdgeError

ROOT = Path(__file__).resolve().parents[2]
SETTLE_S = 0.3
"""Between two questions: threads that spin for more work give up within it."""
LAST_WORDS = 400
"""Characters of a dead worker's stderr that are told."""


class Worker:
    """One process. Use it as a context manager.

    Args:
        python: the interpreter; None = this one.
        module: of this repository, which `serving.serve`s.

    Raises:
        HiredEdgeError: it ends before it has answered.
    """

    def __init__(self, name: str, python: str | None, module: str, arguments: Sequence[str]) -> None:
        self.name = name
        self._files = ExitStack()
        self._errors = self._files.enter_context(tempfile.TemporaryFile("w+"))  # noqa: SIM115 (closed by `close`)
        paths = os.pathsep.join(str(ROOT / part) for part in ("", "export", "runtime"))
        start = time.perf_counter()
        self._process = subprocess.Popen(
            [python or sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": paths},
        )
        self._read()
        self.loading_s = time.perf_counter() - start

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, what: str, **arguments: Any) -> Any:
        """The answer to one question, when the machine has settled."""
        time.sleep(SETTLE_S)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"ask": what, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None
        return self._read()

    def close(self) -> None:
        """Ends the process, which gives its memory back."""
        self._process.kill()
        self._process.communicate()
        self._files.close()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._died()
        return json.loads(line)["answer"]

    def _died(self) -> HiredEdgeError:
        status = self._process.wait()
        self._errors.seek(0)
        words = [line for line in self._errors if line.strip()] or ["nothing on stderr"]
        return HiredEdgeError(
            f"the worker {self.name} ended with status {status} ({words[-1].strip()[:LAST_WORDS]})",
            expected="its measurements",
            fix="free memory, or leave it out",
        )
