"""Files and folders that appear whole: on the disk before they have their name, and nothing of the dead beside them."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hired_edge import durable
from hired_runtime.trt.engines_folder import put_in_place
from hired_runtime.trust.fresh_folder import fresh_folder
from hired_runtime.whole import all_whole, whole


@pytest.fixture
def ended() -> int:
    """The number of a process that there is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is seen onto the disk, and which names are given, in the order in which it happens."""
    seen: list[str] = []
    synchronise, rename, replace = os.fsync, Path.rename, Path.replace

    def synchronised(handle: int) -> None:
        seen.append(f"disk {Path(os.readlink(f'/proc/self/fd/{handle}')).name}")
        synchronise(handle)

    monkeypatch.setattr(os, "fsync", synchronised)
    monkeypatch.setattr(Path, "rename", lambda path, to: (seen.append(f"name {to.name}"), rename(path, to)))
    monkeypatch.setattr(Path, "replace", lambda path, to: (seen.append(f"name {to.name}"), replace(path, to)))
    return seen


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_is_on_the_disk_before_it_has_its_name_and_then_the_name_is(tmp_path: Path, steps: list[str]) -> None:
    with whole(tmp_path / "a.txt") as partial:
        partial.write_text("it")
    assert steps == [f"disk {partial.name}", "name a.txt", f"disk {tmp_path.name}"]
    assert names(tmp_path) == {"a.txt"}


def test_of_several_files_none_has_its_name_before_all_are_on_the_disk(tmp_path: Path, steps: list[str]) -> None:
    with all_whole([tmp_path / "a.json", tmp_path / "a.md"]) as partials:
        for partial in partials:
            partial.write_text(partial.name)
    on_disk = [f"disk {partial.name}" for partial in partials]
    assert steps == [*on_disk, "name a.json", "name a.md", f"disk {tmp_path.name}"]
    assert [(tmp_path / name).read_text() for name in ("a.json", "a.md")] == [each.name for each in partials]


def test_of_several_files_an_error_changes_none(tmp_path: Path) -> None:
    for name in ("a.json", "a.md"):
        (tmp_path / name).write_text("old")
    with pytest.raises(ZeroDivisionError), all_whole([tmp_path / "a.json", tmp_path / "a.md"]) as partials:  # noqa: PT012
        partials[0].write_text("new")
        raise ZeroDivisionError
    assert {path.read_text() for path in tmp_path.iterdir()} == {"old"}
    assert names(tmp_path) == {"a.json", "a.md"}


def test_a_folder_is_on_the_disk_before_it_has_its_name(tmp_path: Path, steps: list[str]) -> None:
    with fresh_folder(tmp_path / "out") as folder:
        (folder / "deep").mkdir()
        (folder / "deep/file").write_text("it")
    assert steps[:-2] == [f"disk {name}" for name in (folder.name, "file", "deep")]
    assert steps[-2:] == ["name out", f"disk {tmp_path.name}"]


@pytest.mark.parametrize("exchanges", [True, False])
def test_engines_that_are_replaced_are_on_the_disk_first_and_nothing_is_left(
    exchanges: bool, tmp_path: Path, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the file system cannot exchange two names, too."""
    if not exchanges:
        monkeypatch.setattr("hired_runtime.trt.engines_folder.exchange", lambda *_: False)
    folder = tmp_path / "engines/sm86"
    folder.mkdir(parents=True)
    (folder / "old").touch()
    with put_in_place(folder) as partial:
        (partial / "new").touch()
    assert steps[:2] == ["disk new", f"disk {partial.name}"]
    assert [step for step in steps if step.startswith("name")] == (
        [] if exchanges else [f"name .sm86.{os.getpid()}.old", "name sm86"]
    )
    assert steps[-2:] == ["disk engines", f"disk {tmp_path.name}"]
    assert names(folder) == {"new"}
    assert names(folder.parent) == {"sm86"}


def test_two_names_change_places_and_neither_is_ever_missing(tmp_path: Path) -> None:
    first, second, missed, done = tmp_path / "first", tmp_path / "second", [], threading.Event()
    for path in (first, second):
        path.mkdir()
        (path / path.name).touch()

    def watch() -> None:
        while not done.is_set():
            missed.extend(path for path in (first, second) if not path.exists())

    watching = threading.Thread(target=watch)
    watching.start()
    for _ in range(201):
        assert durable.exchange(first, second), "this file system cannot"
    done.set()
    watching.join()
    assert not missed
    assert names(first) == {"second"}
    with pytest.raises(FileNotFoundError):
        durable.exchange(first, tmp_path / "nowhere")


def test_what_the_dead_left_is_removed_and_nothing_else(tmp_path: Path, ended: int) -> None:
    stays = [f".other.{ended}.partial", f".a.{os.getppid()}.partial", ".a.partial", f".a.{ended}.old", "a.txt"]
    for name in (*stays, f".a.{ended}.partial"):
        (tmp_path / name).touch()
    with whole(tmp_path / "a.txt") as partial:
        partial.write_text("new")
    assert names(tmp_path) == set(stays)


def test_what_a_process_of_another_machine_writes_is_left_alone(tmp_path: Path, ended: int) -> None:
    """It has a number that nobody has here, and the lock."""
    theirs = tmp_path / f".a.{ended}.partial"
    with theirs.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with whole(tmp_path / "a.txt") as partial:
            partial.write_text("new")
        assert theirs.exists()
    with whole(tmp_path / "a.txt") as partial:
        partial.write_text("new")
    assert names(tmp_path) == {"a.txt"}


def test_a_link_with_the_name_of_what_is_written_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / f".a.{os.getpid()}.partial").symlink_to("mine")
    with pytest.raises(OSError, match="symbolic links"), whole(tmp_path / "a.txt"):
        pass
    assert (tmp_path / "mine").read_text() == "mine"
