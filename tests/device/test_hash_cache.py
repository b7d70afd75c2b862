"""Hashes that are remembered: what a second start reads, and everything that must not be believed."""

from __future__ import annotations

import hashlib
import json
import mmap
import multiprocessing
import os
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hired_runtime
from demo.run import BUNDLE as DEMO
from hired_edge.bundle import Bundle, bundle_bytes
from hired_runtime.trust import hash_cache
from hired_runtime.trust.hash_cache import FILE_NAME, MAX_BYTES, MOST_ENTRIES, HashCache, cached_hashes
from tests.tiny.commands import Capture, accepted, refused
from tests.tiny.manifests import write_bundle

LATER_S = 3
"""By which a file has settled."""


def cache(path: Path, *, later_s: float = LATER_S, reads: bool = True, keeps_ctime: bool = True) -> HashCache:
    """As a process sees it that looks so much later, on a file system that keeps ctime or does not."""
    return HashCache(
        path,
        reads=reads,
        now=lambda: time.time_ns() + int(later_s * 1e9),
        keeps_ctime=lambda handle: keeps_ctime,
    )


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def bytes_read() -> int:
    """By this process, with read(2), since it began: Linux counts them."""
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


class Counted:
    """A cache of one file, and how many bytes were read of `file` to hash it."""

    def __init__(self, folder: Path) -> None:
        self.path, self.file = folder / "cache" / FILE_NAME, folder / "file"
        self.file.write_bytes(os.urandom(2**22))

    def hash(self, **how: float | bool) -> int:
        """Bytes that were read, by a new process as it were; the hash is right in any case."""
        each = cache(self.path, **how)  # pyright: ignore[reportArgumentType]
        before = bytes_read()
        record = each.hash_file(self.file)
        read = bytes_read() - before
        each.save()
        assert (record.bytes, record.sha256) == (self.file.stat().st_size, sha256(self.file))
        return read

    def known(self) -> bool:
        return self.hash() < 2**16


@pytest.fixture
def counted(tmp_path: Path) -> Counted:
    return Counted(tmp_path)


def test_a_file_is_read_once(counted: Counted) -> None:
    assert counted.hash() >= 2**22
    assert counted.hash() < 2**16
    assert counted.hash(reads=False) >= 2**22
    assert counted.known()


def test_progress_counts_what_is_not_read(counted: Counted) -> None:
    for _ in range(2):
        seen: list[int] = []
        each = cache(counted.path)
        each.hash_file(counted.file, seen.append)
        each.save()
        assert sum(seen) == 2**22


def test_the_second_opening_of_a_bundle_reads_no_more_than_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Path(shutil.copytree(DEMO, tmp_path / "bundle"))
    monkeypatch.setattr(hash_cache, "RACY_NS", 0)
    monkeypatch.setattr(hash_cache, "_keeps_ctime", lambda handle: True)
    total, read = bundle_bytes(Bundle.open(bundle).manifest), []
    for _ in range(3):
        before = bytes_read()
        with cached_hashes() as hash_file:
            Bundle.open(bundle, hash_file=hash_file)
        read.append(bytes_read() - before)
    assert read[0] > total
    assert max(read[1:]) < 2**18 < total / 20, "the manifest, and the graphs without their weights"


def restored(path: Path, content: bytes) -> None:
    """Writes in place, and puts the time of modification back."""
    status = path.stat()
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = path.stat()
    assert (after.st_mtime_ns, after.st_size, after.st_ino) == (status.st_mtime_ns, status.st_size, status.st_ino)


def test_a_change_whose_mtime_was_put_back_is_noticed_by_the_ctime(counted: Counted) -> None:
    counted.hash()
    assert counted.known()
    restored(counted.file, b"changed")
    assert not counted.known()


def test_a_changed_file_is_refused_by_a_command_that_has_hashed_it_before(
    bundle: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hash_cache, "RACY_NS", 0)
    monkeypatch.setattr(hash_cache, "_keeps_ctime", lambda handle: True)
    argv = ("run", bundle, "--prompt", "What?", "--max-new-tokens", 1)
    for _ in range(2):
        accepted(capsys, *argv)
    path = bundle / "tokenizer.json"
    restored(path, b" " + path.read_bytes()[1:])
    assert "tokenizer.json was changed" in refused(capsys, *argv)
    assert "tokenizer.json was changed" in refused(capsys, "verify", bundle)


def test_a_write_to_a_mapping_whose_page_was_written_to_before_is_noticed(counted: Counted) -> None:
    """The kernel gives the first of the two a ctime, and the second one none if the page is not on the disk by then."""

    def hashed() -> str:
        each = HashCache(counted.path, now=lambda: time.time_ns() + LATER_S * 10**9)  # what this file system keeps
        record = each.hash_file(counted.file)
        each.save()
        return record.sha256

    with counted.file.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[0] ^= 1
        assert hashed() == sha256(counted.file)
        mapped[0] ^= 1
        assert hashed() == sha256(counted.file)


def test_replaced_renamed_and_touched_files_are_hashed_again(counted: Counted) -> None:
    changes = {
        "replaced": lambda: shutil.move(shutil.copy2(counted.file, counted.file.with_name("copy")), counted.file),
        "moved": lambda: counted.file.rename(counted.file.with_name("x")).rename(counted.file),
        "touched": lambda: os.utime(counted.file),
        "longer": lambda: counted.file.write_bytes(counted.file.read_bytes() + b"."),
        "another mode": lambda: counted.file.chmod(0o600 if counted.file.stat().st_mode & 0o044 else 0o644),
    }
    for name, change in changes.items():
        counted.hash()
        assert counted.known(), name
        change()
        assert not counted.known(), name


def test_a_file_that_has_just_changed_is_not_remembered(counted: Counted) -> None:
    """Another write in the same tick of the clock could leave the same times."""
    for later in (0.0, 1.5, -3600.0):
        counted.hash(later_s=later)
        assert not counted.path.exists()
    counted.hash(later_s=2.5)
    assert counted.known()


def test_a_file_that_changes_while_it_is_hashed_is_not_remembered(counted: Counted) -> None:
    each = cache(counted.path)
    changes = iter([lambda: os.utime(counted.file), lambda: None, lambda: None, lambda: None, lambda: None])
    each.hash_file(counted.file, lambda count: next(changes)())
    each.save()
    assert not counted.path.exists()


def test_a_file_system_without_a_ctime_of_its_own_is_not_trusted(counted: Counted) -> None:
    counted.hash(keeps_ctime=False)
    assert not counted.path.exists()


def test_file_systems_are_told_apart_as_the_kernel_does(tmp_path: Path) -> None:
    """The type of every mounted file system that can be looked into, against the name in /proc/self/mounts."""
    names = {"ext2": True, "ext3": True, "ext4": True, "xfs": True, "btrfs": True, "overlay": True, "f2fs": True}
    names |= dict.fromkeys(("tmpfs", "proc", "sysfs", "cgroup2", "vfat", "nfs4", "9p", "devpts", "mqueue"), False)
    seen = 0
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, name, *_ = line.split()
        try:
            handle = os.open(where, os.O_RDONLY)
        except OSError:
            continue
        try:
            if name in names and "\\" not in where:
                assert hash_cache._keeps_ctime(handle) == names[name], line
                seen += 1
        finally:
            os.close(handle)
    assert seen, "/proc at least is mounted"


def spoil_mode(path: Path) -> None:
    path.chmod(0o620)


def spoil_link(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to("real")


def spoil_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def spoil_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def spoil_large(path: Path) -> None:
    path.write_bytes(path.read_bytes().ljust(MAX_BYTES + 1))


@pytest.mark.parametrize("spoil", [spoil_mode, spoil_link, spoil_fifo, spoil_folder, spoil_large])
def test_a_cache_that_others_could_have_written_is_not_read(spoil: object, counted: Counted) -> None:
    counted.hash()
    assert counted.known()
    assert callable(spoil)
    spoil(counted.path)
    assert not cache(counted.path)._known


def test_a_cache_of_another_user_is_not_read(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    counted.hash()
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(counted.path).st_uid + 1)
    assert not cache(counted.path)._known


def test_it_is_written_for_the_user_alone(counted: Counted) -> None:
    counted.hash()
    assert counted.path.stat().st_mode & 0o777 == 0o600
    assert counted.path.parent.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in counted.path.parent.iterdir()] == [FILE_NAME]


DAMAGED = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"version":2,"entries":[]}',
    b'{"version":1}',
    b'{"version":1,"entries":{}}',
    b'{"version":1,"entries":[[]]}',
    b'{"version":1,"entries":[[1,2,3,4,5,"00"]]}',
    b'{"version":1,"entries":[[1,2,3,4,5.0,"%s"]]}' % (b"0" * 64),
    b'{"version":1,"entries":[[1,2,3,4,true,"%s"]]}' % (b"0" * 64),
    b'{"version":1,"entries":[[1,2,3,4,5,["%s"]]]}' % (b"0" * 64),
    b'{"version":1,"entries":[[1,2,3,4,%s,"%s"]]}' % (b"9" * 5000, b"0" * 64),
]


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_cache_is_ignored_and_made_anew(content: bytes, counted: Counted) -> None:
    counted.hash()
    counted.path.write_bytes(content)
    assert counted.hash() >= 2**22
    assert counted.known()


@settings(max_examples=50, deadline=None)
@given(content=st.binary(max_size=200), at=st.integers(0, 250), cut=st.integers(0, 40))
def test_whatever_becomes_of_a_cache_it_is_read_or_ignored(
    content: bytes, at: int, cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "spoiled.json"
    good = json.dumps({"version": 1, "entries": [[*range(5), "0" * 64], [*range(5, 10), "1" * 64]]}).encode()
    path.write_bytes(good[:at] + content + good[at + cut :])
    path.chmod(0o600)
    for key, digest in cache(path)._known.items():
        assert [type(number) for number in key] == [int] * 5
        assert len(bytes.fromhex(digest)) == 32


def test_it_stays_small_and_the_oldest_go(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    for start in range(0, MOST_ENTRIES + 100, 100):
        each = cache(path)
        for number in range(start, start + 100):
            (tmp_path / f"{number}").write_text(str(number))
            each.hash_file(tmp_path / f"{number}")
        each.save()
    known = cache(path)._known
    assert len(known) == MOST_ENTRIES
    assert path.stat().st_size < MAX_BYTES
    newest = [(tmp_path / f"{number}").stat().st_ino for number in range(start + 99, start, -1)]
    assert [key[1] for key in reversed(known)][:99] == newest


def test_the_longest_entries_fit() -> None:
    longest = [[2**64 - 1] * 3 + [-(2**63)] * 2 + ["0" * 64]] * MOST_ENTRIES
    assert len(json.dumps({"version": 1, "entries": longest}, separators=(",", ":"))) < MAX_BYTES


def fill(folder: str, begin: int, end: int) -> None:
    each = cache(Path(folder) / FILE_NAME)
    for number in range(begin, end):
        (Path(folder) / f"{number}").write_text(str(number))
        each.hash_file(Path(folder) / f"{number}")
        each.save()


def test_two_processes_at_once_leave_a_good_cache(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=fill, args=(str(tmp_path), at, at + 30)) for at in (0, 30)]
    for process in both:
        process.start()
    for process in both:
        process.join()
        assert process.exitcode == 0
    known = cache(tmp_path / FILE_NAME)._known
    assert len(known) >= 30, "an entry may be lost to the other's, not all of them"
    digests = {path.stat().st_ino: sha256(path) for path in tmp_path.iterdir() if path.name.isdigit()}
    assert all(digests[key[1]] == digest for key, digest in known.items())
    assert {path.name for path in tmp_path.iterdir() if not path.name.isdigit()} == {FILE_NAME}


def test_where_nothing_can_be_written_a_bundle_opens_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(tmp_path)
    (tmp_path.parent / "a-file").touch()
    for folder in ("/proc/nothing", "/dev/null/x", str(tmp_path.parent / "a-file")):
        monkeypatch.setenv("HIRED_EDGE_CACHE", folder)
        monkeypatch.setattr(hash_cache, "RACY_NS", 0)
        with cached_hashes() as hash_file:
            Bundle.open(tmp_path, hash_file=hash_file)
    for name in ("HIRED_EDGE_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    with cached_hashes() as hash_file:
        Bundle.open(tmp_path, hash_file=hash_file)


def test_rehash_reads_everything(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hash_cache, "RACY_NS", 0)
    monkeypatch.setattr(hash_cache, "_keeps_ctime", lambda handle: True)
    monkeypatch.setattr(hash_cache.HashCache, "hash_file", lambda *_: pytest.fail("the cache was asked"))
    hired_runtime.open(bundle, visual_tokens="20%", rehash=True).close()
    with pytest.raises(pytest.fail.Exception):
        hired_runtime.open(bundle, visual_tokens="20%")
