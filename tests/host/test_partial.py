"""OUT.partial: what of it is whose, how it is locked, and that nothing else is ever removed."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hired_edge.errors import ExportError, InputError
from hired_export.partial import MARK, partial_folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def tree(root: Path) -> dict[str, bytes | None]:
    paths = root.rglob("*")
    return {path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else None for path in paths}


def test_the_bundle_appears_in_one_step_and_nothing_else_is_left(out: Path) -> None:
    with partial_folder(out, 0) as bundle:
        assert tree(out.parent) == {"out.partial": None, "out.partial/lock": MARK, "out.partial/bundle": None}
        (bundle / "file").write_text("content")
    assert tree(out.parent) == {"out": None, "out/file": b"content"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError, SystemExit])
def test_a_failure_leaves_nothing(error: type[BaseException], out: Path) -> None:
    with pytest.raises(error), partial_folder(out, 0) as bundle:  # noqa: PT012
        (bundle / "deep").mkdir()
        (bundle / "deep/file").write_text("content")
        raise error
    assert tree(out.parent) == {}


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (errno.ENOSPC, r"the disk filled while writing \(No space left on device\)"),
        (errno.EIO, r"out cannot be written \(Input/output error\)"),
    ],
)
def test_what_does_not_reach_the_disk_is_no_bundle(
    number: int, line: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, or a broken one, may show only when all is to be on it."""

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(ExportError, match=line), partial_folder(out, 0) as bundle:  # noqa: PT012
        (bundle / "file").write_text("content")
        monkeypatch.setattr(os, "fsync", fail)
    assert tree(out.parent) == {}


@pytest.mark.parametrize("lock", [None, b"", MARK[:7]], ids=["none", "empty", "cut off"])
@pytest.mark.parametrize("made", [False, True])
def test_what_an_export_left_that_was_killed_as_it_began_or_ended_goes(
    lock: bytes | None, made: bool, out: Path
) -> None:
    """A folder in which nothing is, but perhaps a lock without its mark."""
    partial = out.with_name("out.partial")
    partial.mkdir()
    if lock is not None:
        (partial / "lock").write_bytes(lock)
    if made:
        out.mkdir()
        with pytest.raises(InputError, match="out exists"), partial_folder(out, 0):
            pass
    else:
        with partial_folder(out, 0) as bundle:
            (bundle / "file").touch()
    assert os.listdir(out.parent) == ["out"]


@pytest.mark.parametrize("unfinished", [False, True])
def test_what_an_export_left_that_was_killed_when_its_bundle_was_there_goes(unfinished: bool, out: Path) -> None:
    """Its lock and journal; a bundle that is being made beside an OUT stays."""
    partial = out.with_name("out.partial")
    partial.mkdir()
    out.mkdir()
    for name, content in (("lock", MARK), ("journal", b"")):
        (partial / name).write_bytes(content)
    if unfinished:
        (partial / "bundle").mkdir()
    with (partial / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="out exists"), partial_folder(out, 0):
            pass
        assert (partial / "lock").exists(), "it runs"
    with pytest.raises(InputError, match="out exists"), partial_folder(out, 0):
        pass
    assert partial.exists() == unfinished


def folder_with_a_bundle(partial: Path) -> None:
    (partial / "bundle").mkdir(parents=True)
    (partial / "bundle/thesis").write_text("mine")


def folder_with(lock: bytes) -> Callable[[Path], None]:
    def make(partial: Path) -> None:
        folder_with_a_bundle(partial)
        (partial / "lock").write_bytes(lock)

    return make


def folder_with_a_pipe(partial: Path) -> None:
    folder_with_a_bundle(partial)
    os.mkfifo(partial / "lock")


def folder_with_a_folder(partial: Path) -> None:
    (partial / "lock").mkdir(parents=True)


def folder_with_a_link(partial: Path) -> None:
    folder_with_a_bundle(partial)
    (partial.parent / "elsewhere").write_bytes(MARK)
    (partial / "lock").symlink_to("../elsewhere")


def link_to_a_folder(partial: Path) -> None:
    folder_with(MARK)(partial.parent / "elsewhere")
    partial.symlink_to("elsewhere")


FOREIGN: dict[str, Callable[[Path], object]] = {
    "a bundle without a lock": folder_with_a_bundle,
    "an empty lock": folder_with(b""),
    "another lock": folder_with(b"pid 17\n"),
    "half a lock": folder_with(MARK[:-1]),
    "a lock that is a pipe": folder_with_a_pipe,
    "a lock that is a folder": folder_with_a_folder,
    "a lock that is a link": folder_with_a_link,
    "a file": lambda partial: partial.write_text("mine"),
    "a link to a folder": link_to_a_folder,
    "a link to nowhere": lambda partial: partial.symlink_to("nowhere"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_folder_is_refused_and_kept(kind: str, out: Path) -> None:
    partial = out.with_name("out.partial")
    FOREIGN[kind](partial)
    before = tree(out.parent)
    with pytest.raises(InputError) as refusal, partial_folder(out, 0):
        pass
    assert str(refusal.value) == (
        f"{partial} exists and was not made by hired-edge export; "
        "expected that name to be free, since the bundle is made there; move it away, or name another OUT"
    )
    assert tree(out.parent) == before


def test_what_a_killed_export_left_is_replaced(out: Path) -> None:
    folder_with(MARK)(out.with_name("out.partial"))
    with partial_folder(out, 0) as bundle:
        assert list(bundle.iterdir()) == []
    assert tree(out.parent) == {"out": None}


def test_what_somebody_put_beside_it_stays(out: Path) -> None:
    partial = out.with_name("out.partial")
    folder_with(MARK)(partial)
    (partial / "notes").write_text("mine")
    kept = {"out.partial": None, "out.partial/lock": MARK, "out.partial/notes": b"mine"}
    with pytest.raises(ZeroDivisionError), partial_folder(out, 0):
        raise ZeroDivisionError
    assert tree(out.parent) == kept
    with partial_folder(out, 0):
        pass
    assert tree(out.parent) == {"out": None, **kept}


def test_a_lock_that_is_held_is_respected(out: Path) -> None:
    folder_with(MARK)(out.with_name("out.partial"))
    before = tree(out.parent)
    with out.with_name("out.partial").joinpath("lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match=r"another export to .*out is running; expected one at a time"):
            partial_folder(out, 0).__enter__()
    assert tree(out.parent) == before


def test_an_export_that_ends_while_its_lock_is_looked_at_is_still_running(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = out.with_name("out.partial")
    folder_with(MARK)(partial)

    def removed_meanwhile(*arguments: Any) -> None:
        shutil.rmtree(partial)

    monkeypatch.setattr(fcntl, "flock", removed_meanwhile)
    with pytest.raises(InputError, match="is running"):
        partial_folder(out, 0).__enter__()
    assert tree(out.parent) == {}


HOLDER = """
import sys
from pathlib import Path
from hired_export.partial import partial_folder
with partial_folder(Path(sys.argv[1]), 0) as bundle:
    (bundle / "file").write_text("theirs")
    print("held", flush=True)
    sys.stdin.readline()
"""


def holder(out: Path) -> subprocess.Popen[str]:
    """Another process that exports to `out` until it reads a line."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", HOLDER, str(out)]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_two_processes(out: Path) -> None:
    with holder(out) as process:
        with pytest.raises(InputError, match="another export to"):
            partial_folder(out, 0).__enter__()
        process.communicate("end\n", timeout=60)
        assert process.returncode == 0
    assert tree(out.parent) == {"out": None, "out/file": b"theirs"}


def test_a_killed_process_holds_nothing(out: Path) -> None:
    with holder(out) as process:
        process.kill()
    assert (out.with_name("out.partial") / "bundle/file").exists()
    with partial_folder(out, 0) as bundle:
        (bundle / "file").write_text("ours")
    assert tree(out.parent) == {"out": None, "out/file": b"ours"}


def test_a_file_system_without_locks_is_one_line(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(ExportError, match=r"lock cannot be written \(Operation not supported\)"):
        partial_folder(out, 0).__enter__()
    assert tree(out.parent) == {}


def test_more_ctrl_c_does_not_stop_the_removal(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remove = shutil.rmtree

    def interrupted(*arguments: Any, **options: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        remove(*arguments, **options)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), partial_folder(out, 0) as bundle:  # noqa: PT012
        (bundle / "file").write_text("content")
        raise KeyboardInterrupt
    assert tree(out.parent) == {}
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_while_the_folder_is_made_leaves_nothing(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Path.mkdir

    def interrupted(path: Path, *arguments: Any, **options: Any) -> None:
        make(path, *arguments, **options)
        if path.name == "out.partial":
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Path, "mkdir", interrupted)
    with pytest.raises(KeyboardInterrupt), partial_folder(out, 0):
        raise AssertionError("interrupted before")
    assert tree(out.parent) == {}


def test_a_thread_may_export(out: Path) -> None:
    def work() -> None:
        with partial_folder(out, 0):
            pass

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert tree(out.parent) == {"out": None}
