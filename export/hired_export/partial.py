"""`OUT.partial/`: written into, then renamed to OUT in one step, or removed whatever went wrong."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from hired_edge.errors import ExportError, InputError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def partial_folder(out: Path, needed: int) -> Iterator[Path]:
    """OUT.partial/, renamed to OUT where the block ends well and removed where it does not."""
    if os.path.lexists(out):  # a link to nowhere as well
        raise InputError(f"{out} exists", expected="a folder to be made", fix="remove it, or name another OUT")
    partial = out.with_name(out.name + ".partial")
    try:
        if partial.exists():
            shutil.rmtree(partial)  # what a killed export left
        out.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(out.parent).free
        if free < needed:
            raise _no_room(out, f"{free / 2**20:.0f} MiB free", needed)
        partial.mkdir()
        yield partial
        partial.rename(out)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if error.errno in NO_ROOM:
            raise _no_room(out, f"the disk filled while writing ({error.strerror})", needed) from None
        if error.filename is None:
            raise
        raise ExportError(
            f"{error.filename} cannot be written ({error.strerror})",
            expected=f"a folder in which {out} can be made",
            fix="choose an OUT that you may write to",
        ) from None
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _no_room(out: Path, got: str, needed: int) -> ExportError:
    return ExportError(
        got, expected=f"about {needed / 2**20:.0f} MiB for {out}", fix="free some space and export again"
    )
