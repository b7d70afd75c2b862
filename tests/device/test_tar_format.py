"""The tar files of pack and unpack against Python's tarfile and GNU tar, which we did not write."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hired_edge.errors import BundleError
from hired_runtime.trust import tar_format
from hired_runtime.trust.tar_format import BLOCK, MAX_END_BYTES, MAX_PAX_BYTES, RECORD, read_members

PARTS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,80}", fullmatch=True)
NAMES = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
FILES = st.dictionaries(NAMES, st.binary(max_size=1200), min_size=1, max_size=6)
HAS_TAR = shutil.which("tar") is not None


def ours(files: dict[str, bytes]) -> bytes:
    parts = [tar_format.header(name, len(data)) + data + tar_format.padding(len(data)) for name, data in files.items()]
    body = b"".join(parts)
    return body + tar_format.end(len(body))


def theirs(files: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.uid, member.uname = len(data), 2, 2**31, "somebody"
            tar.addfile(member, io.BytesIO(data))
    return target.getvalue()


def read(content: bytes, folder: Path) -> dict[str, bytes]:
    """As our reader sees it."""
    path = folder / "x.tar"
    path.write_bytes(content)
    with path.open("rb") as file:
        members = read_members(file.fileno(), path.name)
        return {name: os.pread(file.fileno(), each.size, each.offset) for name, each in members.items()}


def refusal(content: bytes, folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        read(content, folder)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    return caught.value.got


@settings(max_examples=30, deadline=None)
@given(files=FILES)
def test_tarfile_reads_what_we_write(files: dict[str, bytes]) -> None:
    content = ours(files)
    assert len(content) % RECORD == 0
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
        for member, (name, data) in zip(tar.getmembers(), files.items(), strict=True):
            assert (member.name, member.size, member.type) == (name, len(data), tarfile.REGTYPE)
            assert (member.mode, member.uid, member.gid, member.mtime) == (0o644, 0, 0, 0)
            assert (member.uname, member.gname, member.linkname) == ("", "", "")
            found = tar.extractfile(member)
            assert found is not None
            assert found.read() == data


@settings(max_examples=30, deadline=None)
@given(files=FILES)
def test_we_read_what_we_write(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    assert read(ours(files), tmp_path_factory.getbasetemp()) == files


@settings(max_examples=30, deadline=None)
@given(files=FILES)
def test_we_read_what_tarfile_writes(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    assert read(theirs(files), folder) == files
    short = {name: data for name, data in files.items() if len(name) <= 100}
    if short:
        assert read(theirs(short, tarfile.GNU_FORMAT), folder) == short


def test_a_long_name_is_split_by_ustar_and_put_together_again(tmp_path: Path) -> None:
    files = {"a" * 90 + "/" + "b" * 90: b"1", "c/" * 60 + "d": b"2"}
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    assert read(target.getvalue(), tmp_path) == files


def test_gnu_tar_takes_ours_and_we_take_its(tmp_path: Path) -> None:
    if not HAS_TAR:
        return
    files = {"manifest.json": b"{}", "language/" + "x" * 120 + ".bin": b"long" * 500, "empty": b""}
    (tmp_path / "ours.tar").write_bytes(ours(files))
    for folder in ("out", "back"):
        (tmp_path / folder).mkdir()
    tar = ("tar", "-C", str(tmp_path / "out"))
    done = subprocess.run([*tar, "-xvf", str(tmp_path / "ours.tar")], capture_output=True, text=True, check=True)
    assert (done.stdout.splitlines(), done.stderr) == (list(files), "")
    assert {name: (tmp_path / "out" / name).read_bytes() for name in files} == files
    for form in ("pax", "posix", "ustar", "gnu"):
        names = [name for name in files if len(name) < 100 or form in ("pax", "posix")]
        path = tmp_path / f"{form}.tar"
        subprocess.run([*tar, f"--format={form}", "-cf", str(path), *names], check=True, capture_output=True)
        with path.open("rb") as file:
            members = read_members(file.fileno(), path)
            assert {name: os.pread(file.fileno(), each.size, each.offset) for name, each in members.items()} == {
                name: files[name] for name in names
            }


@pytest.mark.parametrize("size", [8**11 - 1, 8**11, 2**40])
def test_files_beyond_what_ustar_can_say(size: int, tmp_path: Path) -> None:
    """A sparse file of that length: 8 GiB and more, of which a few blocks are on the disk."""
    path = tmp_path / "large.tar"
    with path.open("wb") as file:
        before = tar_format.header("weights", size)
        file.write(before)
        file.seek(size + len(tar_format.padding(size)), os.SEEK_CUR)
        file.write(tar_format.header("last", 3) + b"end" + tar_format.padding(3))
        file.write(tar_format.end(file.tell()))
    assert len(before) == (BLOCK if size < 8**11 else 3 * BLOCK)
    with path.open("rb") as file:
        members = read_members(file.fileno(), path)
        assert [(each.name, each.size) for each in members.values()] == [("weights", size), ("last", 3)]
        assert os.pread(file.fileno(), 3, members["last"].offset) == b"end"
    with tarfile.open(path, "r:") as tar:
        assert [(each.name, each.size) for each in tar] == [("weights", size), ("last", 3)]
    if HAS_TAR:
        listed = subprocess.run(["tar", "-tvf", str(path)], capture_output=True, text=True, check=True)
        assert [line.split()[2] for line in listed.stdout.splitlines()] == [str(size), "3"]
        assert listed.stderr == ""


def test_the_bytes_are_those_that_posix_gives() -> None:
    """A golden header, field by field (POSIX.1-2001, pax, ustar interchange format)."""
    block = tar_format.header("a/b", 0o1234)
    fields = (b"a/b" + bytes(97), b"0000644\0", b"0000000\0", b"0000000\0", b"00000001234\0", b"00000000000\0")
    assert block[:148] == b"".join(fields)
    assert block[148:156] == b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:]))
    assert block[156:265] == b"0" + bytes(100) + b"ustar\x0000"
    assert block[265:] == bytes(64) + b"0000000\x000000000\0" + bytes(167)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.DIRTYPE, "a folder"),
        (tarfile.FIFOTYPE, "a pipe"),
        (tarfile.CONTTYPE, "a contiguous file"),
        (tarfile.GNUTYPE_SPARSE, "a sparse file"),
        (b"V", "a volume's name"),
        (b"M", "a file's second volume"),
        (b"Z", "something unknown"),
    ],
)
def test_members_that_are_no_plain_files_are_refused_by_their_kind(kind: bytes, words: str, tmp_path: Path) -> None:
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        target = io.BytesIO()
        with tarfile.open(fileobj=target, mode="w", format=form) as tar:
            member = tarfile.TarInfo("evil\n\x1b[31m")
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
        assert refusal(target.getvalue(), tmp_path).startswith(f"x.tar holds {words}, 'evil")


def test_gnus_long_names_and_global_headers_are_refused(tmp_path: Path) -> None:
    assert "GNU's long name" in refusal(theirs({"x" * 150: b""}, tarfile.GNU_FORMAT), tmp_path)
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"path": "evil"}) as tar:
        tar.addfile(tarfile.TarInfo("good"))
    assert "a global header" in refusal(target.getvalue(), tmp_path)


def pax(*records: bytes, name: str = "good", data: bytes = b"") -> bytes:
    """A file behind a pax header of any content."""
    content = b"".join(records)
    head = tar_format._ustar(b"x", len(content), b"x") + content + tar_format.padding(len(content))
    return head + ours({name: data})


def record(key: str, value: str) -> bytes:
    return tar_format._record(key, value)


SPOILED_PAX = {
    "no length": b"path=x\n",
    "a length of nothing": b"0 path=x\n",
    "a length too long": b"99 path=x\n",
    "a length too short": b"5 path=x\n",
    "a negative length": b"-9 path=x\n",
    "a huge length": b"9" * 50 + b" path=x\n",
    "no equals": b"7 path\n",
    "no end of line": b"9 path=xy",
    "not UTF-8": b"10 path=\xff\n",
    "path twice": record("path", "a") * 2,
    "a sparse file": record("GNU.sparse.major", "1"),
    "a sparse name": record("GNU.sparse.name", "/etc/passwd"),
    "a link": record("linkpath", "/etc/passwd"),
    "another character set": record("hdrcharset", "BINARY"),
    "an attribute": record("SCHILY.xattr.user.x", "y"),
    "a size that is none": record("size", "-1"),
    "a size in words": record("size", "ten"),
    "a size too large": record("size", "9" * 18),
    "a size of too many digits": record("size", "1" * 19),
    "nothing behind it": b"9 path=xy\n"[:8],
}


@pytest.mark.parametrize("content", SPOILED_PAX.values(), ids=SPOILED_PAX)
def test_odd_pax_headers_are_refused(content: bytes, tmp_path: Path) -> None:
    refusal(pax(content), tmp_path)


def test_pax_headers_are_bounded_and_belong_to_one_file(tmp_path: Path) -> None:
    fits = record("comment", "x" * (MAX_PAX_BYTES - 30))
    assert read(pax(fits), tmp_path) == {"good": b""}
    assert "a pax header of " in refusal(pax(fits, record("path", "x" * 30)), tmp_path)
    claimed = tar_format._ustar(b"x", 8**11 - 1, b"x")
    assert "a pax header of 8589934591 bytes" in refusal(claimed + ours({"a": b""}), tmp_path)
    twice = pax(record("path", "a"))[: 2 * BLOCK] + pax(record("path", "b"))
    assert "two pax headers" in refusal(twice, tmp_path)
    assert "ends with a pax header" in refusal(pax(record("path", "a"))[: 2 * BLOCK] + bytes(RECORD), tmp_path)


def changed(content: bytes, at: int, data: bytes) -> bytes:
    """With a right checksum."""
    content = content[:at] + data + content[at + len(data) :]
    blank = content[:148] + b" " * 8 + content[156:]
    return content[:148] + b"%06o\0 " % sum(blank[:BLOCK]) + content[156:]


def test_numbers_are_octal_and_headers_whole(tmp_path: Path) -> None:
    good = ours({"a": b"123"})
    assert read(changed(good, 124, b"          3 "), tmp_path) == {"a": b"123"}
    for size in (b"-0000000003\0", b"\x80" + bytes(10) + b"\3", b"\xff" * 12, b"00000000009\0", b" " * 12, bytes(12)):
        refusal(changed(good, 124, size), tmp_path)
    assert "is cut off" in refusal(changed(good, 124, b"77777777777\0"), tmp_path)
    assert "damaged header" in refusal(good[:3] + b"x" + good[4:], tmp_path)
    assert "is not a tar file" in refusal(changed(good, 257, b"ustar\x0001"), tmp_path)
    assert "is not a tar file" in refusal(b"\x1f\x8b" + bytes(2000), tmp_path)
    assert "not UTF-8" in refusal(changed(good, 0, b"\xff"), tmp_path)
    assert "ends before its end" in refusal(changed(good, 0, b"a\0b"), tmp_path)


def test_the_end_is_two_blocks_of_zeros_and_no_more(tmp_path: Path) -> None:
    good = ours({"a": b"123"})
    body = good[: 2 * BLOCK]
    assert read(body + bytes(2 * BLOCK), tmp_path) == {"a": b"123"}
    assert read(body + bytes(MAX_END_BYTES), tmp_path) == {"a": b"123"}
    for end in (b"", bytes(BLOCK), bytes(BLOCK) + b"x" * BLOCK, bytes(MAX_END_BYTES + BLOCK)):
        refusal(body + end, tmp_path)
    assert "behind its end" in refusal(good + ours({"b": b""}), tmp_path)
    assert "is cut off" in refusal(b"", tmp_path)
    assert "is cut off" in refusal(good[:100], tmp_path)


def test_every_name_once_and_not_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = ours({"a": b""})[:BLOCK]
    assert "holds 'a' twice" in refusal(one * 2 + bytes(RECORD), tmp_path)
    monkeypatch.setattr(tar_format, "MOST_MEMBERS", 3)
    files = {f"{number}": b"" for number in range(4)}
    assert "more than 3 files" in refusal(ours(files), tmp_path)
    del files["3"]
    assert read(ours(files), tmp_path) == files


@settings(max_examples=40, deadline=None)
@given(data=st.data(), files=FILES)
def test_whatever_becomes_of_a_tar_it_is_read_as_tarfile_reads_it_or_refused(
    data: st.DataObject, files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(data.draw(st.sampled_from([ours, theirs]))(files))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        found = read(bytes(content), tmp_path_factory.getbasetemp())
    except BundleError:
        return
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
        expected = {}
        for member in tar.getmembers():
            file = tar.extractfile(member)
            assert file is not None
            expected[member.name.rstrip("/")] = file.read()
    assert {name.rstrip("/"): content for name, content in found.items()} == expected
