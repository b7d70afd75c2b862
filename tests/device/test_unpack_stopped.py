"""unpack: a full disk, a kill, Ctrl-C, what lies in the way, damaged tars. OUT is whole, or is not there."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hired_edge.errors import HiredEdgeError
from hired_runtime.trust import unpacking
from tests.tiny.commands import Capture, accepted, finish, refused, start
from tests.tiny.manifests import write_bundle
from tests.tiny.tars import check_refused, files, listed, write


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a few bytes."""
    folder = tmp_path_factory.mktemp("small") / "bundle"
    folder.mkdir()
    write_bundle(folder)
    return folder


def test_a_full_disk_leaves_nothing(
    small: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tar = write(tmp_path / "x.tar", listed(small))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    assert "0 MiB free in" in check_refused(capsys, tmp_path, tar, tmp_path / "out")
    monkeypatch.undo()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    line = check_refused(capsys, tmp_path, tar, tmp_path / "out")
    assert "out cannot be written (No space left on device)" in line


SLOW = """
import sys, time
from hired_runtime.trust import unpacking
copy = unpacking._copy
def slow(*arguments):
    copy(*arguments)
    print("copied", flush=True)
    time.sleep(600)
unpacking._copy = slow
from hired_edge.cli import main
sys.exit(main(sys.argv[3:]))
"""


def test_one_that_is_killed_leaves_no_bundle_and_the_next_one_cleans_up(
    small: Path, tmp_path: Path, capsys: Capture
) -> None:
    tar, out = write(tmp_path / "x.tar", listed(small)), tmp_path / "out"
    process = start("unpack", tar, out, options=["-c", SLOW])
    assert process.stdout is not None
    assert process.stdout.readline() == "copied\n"
    assert not out.exists()
    assert f"another process is making {out}" in refused(capsys, "unpack", tar, out)
    process.kill()
    finish(process)
    assert (tmp_path / ".out.unpacking").is_dir()
    accepted(capsys, "unpack", tar, out)
    assert files(out) == files(small)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "x.tar"]


def test_ctrl_c_leaves_nothing(small: Path, tmp_path: Path) -> None:
    tar = write(tmp_path / "x.tar", listed(small))
    process = start("unpack", tar, tmp_path / "out", options=["-c", SLOW])
    assert process.stdout is not None
    assert process.stdout.readline() == "copied\n"
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 130
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar"]


def test_what_lies_in_the_way_is_somebody_elses(
    small: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tar = write(tmp_path / "x.tar", listed(small))
    (tmp_path / ".out.unpacking").symlink_to(tmp_path)
    check_refused(capsys, tmp_path, tar, tmp_path / "out")
    (tmp_path / ".out.unpacking").unlink()
    (tmp_path / ".out.unpacking").write_text("a file")
    check_refused(capsys, tmp_path, tar, tmp_path / "out")
    (tmp_path / ".out.unpacking").unlink()
    (tmp_path / ".out.unpacking").mkdir()
    (tmp_path / ".out.unpacking/theirs").touch()
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(tmp_path).st_uid + 1)
    assert "is somebody else's" in check_refused(capsys, tmp_path, tar, tmp_path / "out")
    assert (tmp_path / ".out.unpacking/theirs").exists()


def test_progress_counts_every_byte(small: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    with unpacking.opened(write(tmp_path / "x.tar", listed(small)), None) as archive:
        unpacking.unpack(archive, tmp_path / "out", seen.append)
        assert sum(seen) == archive.bytes == sum(map(len, files(small).values()))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_whatever_becomes_of_a_tar_the_bundle_is_whole_or_not_there(
    data: st.DataObject, small: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "mutated"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    content = bytearray(write(folder / "x.tar", listed(small)).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        how = data.draw(st.sampled_from(["bytes", "cut", "block", "end"]))
        if how == "bytes":
            content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        elif how == "end":
            del content[at:]
        else:
            block = at - at % 512
            moved = bytes(content[block : block + 512])
            del content[block : block + 512]
            if how == "block":
                target = data.draw(st.integers(0, len(content) // 512)) * 512
                content[target:target] = moved
        if not content:
            break
    (folder / "x.tar").write_bytes(content)
    try:
        with unpacking.opened(folder / "x.tar", None) as archive:
            unpacking.unpack(archive, folder / "out")
        assert files(folder / "out") == files(small)
    except HiredEdgeError:
        assert not (folder / "out").exists()
    assert {path.name for path in folder.iterdir()} <= {"out", "x.tar"}
