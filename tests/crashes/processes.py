"""Starts `hired-edge` in a process group of its own, by itself or from the warm process, and ends all of that group."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 600.0


@dataclass(frozen=True)
class Ended:
    """How a command ended, the steps that it took, and its seconds from the first of them."""

    status: int
    output: str
    errors: str
    steps: int
    seconds: float


@dataclass(frozen=True)
class Moment:
    """When a command is killed: `seconds` after its first step on the disk, or right before its `step`-th.

    With `left`, the disk fills up before that step instead, to so many bytes, by the file `ballast`: see `runner`.
    """

    seconds: float | None = None
    step: int | None = None
    left: int | None = None
    ballast: str | None = None


NEVER = Moment()
Wait = Callable[[float], "int | None"]
"""Waits so many seconds; the exit status, or None where the process goes on."""


class Launcher:
    """A context manager, since the warm process lives as long as it does.

    Args:
        base: for what the commands print, and what they may cache and share.
    """

    def __init__(self, base: Path) -> None:
        self._base = base
        self._told, self._tell = os.pipe()
        os.set_blocking(self._told, False)
        self._warm: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Launcher:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._warm is not None:
            self._warm.kill()
            self._warm.wait()
        os.close(self._told)
        os.close(self._tell)

    def run(self, argv: Sequence[object], folder: Path, moment: Moment = NEVER, *, warm: bool = False) -> Ended:
        """Runs `hired-edge argv...` until it ends or is killed, with all that it has started.

        Args:
            folder: what it writes; `folder/cache` is its cache, `folder/tmp` its temporary files'.
            warm: from the warm process.
        """
        self._drain()
        words = list(map(str, argv))
        (folder / "tmp").mkdir(exist_ok=True)
        own = {
            "XDG_CACHE_HOME": str(folder / "cache"),
            "TMPDIR": str(folder / "tmp"),
            "MPLCONFIGDIR": str(self._base / "matplotlib"),
        }
        output, errors = self._base / "output", self._base / "errors"
        if warm:
            pid, wait = self._fork(words, folder, moment, own, output, errors)
        else:
            pid, wait = self._spawn(words, folder, moment, own, output, errors)
        steps, began = 0, 0.0
        try:
            steps, began = self._first_step(wait)
            if moment.seconds is not None and steps:
                _sleep(began + moment.seconds - time.monotonic(), wait)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            status = wait(PATIENCE_S)
            assert status is not None, f"{words} takes over {PATIENCE_S} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        ended = time.monotonic()
        _until_gone(pid)
        steps += self._drain()
        return Ended(
            status,
            output.read_text(errors="replace"),
            errors.read_text(errors="replace"),
            steps,
            ended - began if steps else 0.0,
        )

    def _first_step(self, wait: Wait) -> tuple[int, float]:
        while True:
            if select.select([self._told], [], [], 0.02)[0]:
                return self._drain(), time.monotonic()
            if wait(0) is not None:
                return self._drain(), time.monotonic()

    def _drain(self) -> int:
        count = 0
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._told, 2**16):
                count += len(data)
        return count

    def _spawn(
        self, words: list[str], folder: Path, moment: Moment, own: dict[str, str], output: Path, errors: Path
    ) -> tuple[int, Wait]:
        with output.open("w") as out, errors.open("w") as err:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.crashes.runner"),
                    *(str(folder), str(self._tell), json.dumps(asdict(moment)), *words),
                ],
                env={**_environment(), **own},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                pass_fds=[self._tell],
            )

        def wait(seconds: float) -> int | None:
            try:
                return process.wait(seconds)
            except subprocess.TimeoutExpired:
                return None

        return process.pid, wait

    def _fork(
        self, words: list[str], folder: Path, moment: Moment, own: dict[str, str], output: Path, errors: Path
    ) -> tuple[int, Wait]:
        if self._warm is None:
            self._warm = subprocess.Popen(
                [sys.executable, "-m", "tests.crashes.warm", str(self._tell)],
                env=_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,  # so that what was not read yet can be waited for
                start_new_session=True,
                pass_fds=[self._tell],
            )
        warm = self._warm
        assert warm.stdin is not None
        assert warm.stdout is not None
        asked = {
            "folder": str(folder),
            "moment": asdict(moment),
            "argv": words,
            "environment": own,
            "output": str(output),
            "errors": str(errors),
        }
        warm.stdin.write(json.dumps(asked).encode() + b"\n")
        lines, ended = warm.stdout, list[int]()
        pid = json.loads(lines.readline())

        def wait(seconds: float) -> int | None:
            if not ended and select.select([lines], [], [], seconds)[0]:
                ended.append(json.loads(lines.readline()))
            return ended[0] if ended else None

        return pid, wait


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def _sleep(seconds: float, wait: Wait) -> None:
    """As long, or until the process has ended."""
    if seconds > 0.01:
        wait(seconds - 0.01)
        seconds = 0.01
    time.sleep(max(0.0, seconds))


def _until_gone(group: int) -> None:
    """A process that was killed lets go of its locks only as it ends."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if not any(_runs_in(group, path) for path in Path("/proc").iterdir() if path.name.isdigit()):
            return
        time.sleep(0.005)


def _runs_in(group: int, process: Path) -> bool:
    try:
        state, _, its, *_ = (process / "stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return False
    return its == str(group) and state not in "ZX"
