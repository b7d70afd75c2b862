"""What the benchmarks' commands share: exit statuses, numbers that they take, the machine, and the page they add to."""

from __future__ import annotations

import math
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.cpu.results import Where
from hired_edge import __version__
from hired_edge.cli import EXIT_ERROR, EXIT_INTERRUPTED, EXTRAS
from hired_edge.errors import HiredEdgeError, InputError
from hired_runtime.profiling.machine import Machine
from hired_runtime.whole import whole


def guarded(prog: str, run: Callable[[], int], interrupted: str) -> int:
    """What `run` returns; 2 for what a user can mend, 130 for Ctrl-C, after which `interrupted` is said."""
    try:
        return run()
    except HiredEdgeError as error:
        print(f"{prog}: error:", " ".join(str(error).splitlines()), file=sys.stderr)
        return EXIT_ERROR
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        print(f"{prog}: error: no module named {error.name}; pip install '.[{extra}]'", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print(f"{prog}: interrupted; {interrupted}", file=sys.stderr)
        return EXIT_INTERRUPTED


def at_least_one(flag: str, number: float) -> None:
    """Raises InputError for a number below 1, or none at all."""
    if not (math.isfinite(number) and number >= 1):
        raise InputError(f"{flag} {number}", expected="1 or more", fix=f"pass another {flag}")


def folder_of_its_own(flag: str, path: Path) -> Path:
    """The folder, which is made where it is not there.

    Raises:
        InputError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{flag} {path} ({error.strerror})", expected="a folder that can be written to", fix=f"pass another {flag}"
        ) from None
    return path


class Page:
    """A Markdown file of sections, the newest first, under a title and an introduction.

    Args:
        path: need not exist yet; its folder must.
        head: the title's line, and the introduction.

    Raises:
        InputError: no such folder, or a file that is another page.
    """

    def __init__(self, path: Path, head: str) -> None:
        self._path, self._head = path, head
        if not path.parent.is_dir():
            raise InputError(
                f"{path.parent} is no folder", expected="the one that the page goes to", fix="make it first"
            )
        title = head.partition("\n")[0]
        try:
            older = path.read_text(encoding="utf-8") if path.exists() else f"{title}\n"
        except (OSError, UnicodeDecodeError):
            older = ""
        if not older.startswith(f"{title}\n"):
            raise InputError(f"{path} is another file", expected=f"one that begins with {title!r}", fix="name another")
        _, mark, sections = older.partition("\n## ")
        self._sections = f"## {sections}" if mark else ""

    def add(self, section: str) -> None:
        """Writes the page with `section`, which ends with an empty line, on top of those that it has."""
        with whole(self._path) as partial:
            partial.write_text(f"{self._head}\n{section}{self._sections}", encoding="utf-8")


def where(here: Machine, threads: int, versions: tuple[str, ...]) -> Where:
    """The machine as a run notes it."""
    return Where(
        processor=here.processor,
        cores=here.cores,
        memory_bytes=here.memory_bytes,
        threads=threads,
        python=platform.python_version(),
        versions=(f"hired-edge {__version__}", *dict.fromkeys(versions)),
    )
