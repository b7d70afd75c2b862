"""pack: one file, whose bytes are the bundle's and nobody else's; GNU tar and Python's tarfile take it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from hired_edge.bundle import Bundle, read_manifest
from hired_edge.errors import BundleError
from hired_runtime.trust import packing
from tests.device.conftest import BUNDLE
from tests.tiny import engine_records, keys
from tests.tiny.commands import Capture, accepted, refused


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_bundle_comes_back_as_it_was(bundle: Path, tmp_path: Path, capsys: Capture) -> None:
    tar, out = tmp_path / "bundle.tar", tmp_path / "out"
    told = accepted(capsys, "pack", bundle, tar)
    assert told == f"{tar}: {len(files(bundle))} files, {tar.stat().st_size} bytes, not signed\n"
    told = accepted(capsys, "unpack", tar, out)
    assert told == f"{out}: {len(files(bundle)) - 1} files as in the manifest, signature not checked (--public-key)\n"
    assert files(out) == files(bundle)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "bundle.tar", "out"]


def test_the_same_bundle_gives_the_same_bytes_wherever_it_lies_and_whoever_packs_it(
    bundle: Path, tmp_path: Path, capsys: Capture
) -> None:
    first = tmp_path / "first.tar"
    accepted(capsys, "pack", bundle, first)
    other = tmp_path / "another name, and a longer one"
    other.mkdir(mode=0o700)
    for path in sorted(bundle.rglob("*"), reverse=True):  # another order, other times and rights
        target = other / path.relative_to(bundle)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            shutil.copyfile(path, target)
            target.chmod(0o600)
            os.utime(target, (10**9, 10**9))
    before = os.umask(0o077)
    try:
        accepted(capsys, "pack", other, tmp_path / "second.tar")
    finally:
        os.umask(before)
    assert digest(tmp_path / "second.tar") == digest(first)
    link = tmp_path / "link"
    link.symlink_to(other)
    accepted(capsys, "pack", f"{link}/", tmp_path / "third.tar")
    assert digest(tmp_path / "third.tar") == digest(first)


def test_it_is_an_ordinary_tar_manifest_and_signature_first(bundle: Path, tmp_path: Path, capsys: Capture) -> None:
    private, _ = keys.pem(tmp_path)
    accepted(capsys, "sign", bundle, "--key", private)
    tar = tmp_path / "bundle.tar"
    assert accepted(capsys, "pack", bundle, tar).endswith("bytes, with its signature\n")
    names = ["manifest.json", "manifest.json.sig", *sorted(read_manifest(bundle).files)]
    with tarfile.open(tar, "r:") as archive:
        assert archive.getnames() == names
        assert {(each.type, each.mode, each.uid, each.gid, each.mtime) for each in archive} == {
            (tarfile.REGTYPE, 0o644, 0, 0, 0)
        }
    if shutil.which("tar"):
        out = tmp_path / "by tar"
        out.mkdir()
        done = subprocess.run(["tar", "-xvf", tar, "-C", out], capture_output=True, text=True, check=True)
        assert (done.stdout.splitlines(), done.stderr) == (names, "")
        assert files(out) == files(bundle)
        Bundle.open(out)


def test_engines_are_left_out_or_come_along(bundle: Path, tmp_path: Path, capsys: Capture) -> None:
    folder = engine_records.write_for(bundle)
    private, public = keys.openssh(tmp_path)
    accepted(capsys, "sign", bundle, "--engines", "--key", private)
    (folder.parent / f".{folder.name}.12.partial").mkdir()
    tar, full = tmp_path / "without.tar", tmp_path / "with.tar"
    assert "; engines for 1 machine(s) left out\n" in accepted(capsys, "pack", bundle, tar)
    accepted(capsys, "pack", bundle, full, "--engines")
    with tarfile.open(tar) as without, tarfile.open(full) as all_of_it:
        inside = all_of_it.getnames()[len(without.getnames()) :]
        assert all_of_it.getnames()[: -len(inside)] == without.getnames()
    names = ("engine.json", "engine.json.sig", "language.960.engine", "vision.engine")
    assert inside == [f"engines/{folder.name}/{name}" for name in names]
    assert "engines for 1 machine(s)" in accepted(capsys, "unpack", full, tmp_path / "out")
    assert files(tmp_path / "out") == files(bundle)
    (folder / "vision.engine").write_bytes(b"V" * 600)
    accepted(capsys, "pack", bundle, tmp_path / "again.tar")
    assert digest(tmp_path / "again.tar") == digest(tar)
    assert "vision.engine was changed" in refused(capsys, "pack", bundle, tmp_path / "bad.tar", "--engines")
    assert not (tmp_path / "bad.tar").exists()
    assert public.is_file()


def test_a_signature_can_be_required_of_what_is_packed(bundle: Path, tmp_path: Path, capsys: Capture) -> None:
    (private, public), (_, other) = keys.pem(tmp_path), keys.pem(tmp_path, "other")
    engine_records.write_for(bundle)
    accepted(capsys, "sign", bundle, "--key", private)
    tar = tmp_path / "bundle.tar"
    assert "is not the signature" in refused(capsys, "pack", bundle, tar, "--require-signature", other)
    line = refused(capsys, "pack", bundle, tar, "--engines", "--require-signature", public)
    assert "engine.json.sig is missing" in line
    accepted(capsys, "pack", bundle, tar, "--require-signature", public)


def test_what_is_not_sound_is_not_packed(bundle: Path, tmp_path: Path, capsys: Capture) -> None:
    tar, path = tmp_path / "bundle.tar", bundle / "tokenizer.json"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"!")
    assert "tokenizer.json was changed" in refused(capsys, "pack", bundle, tar)
    path.write_bytes(content + b"!")
    assert "tokenizer.json has" in refused(capsys, "pack", bundle, tar)
    path.write_bytes(content)
    weights = bundle / "language/model.onnx.data"
    held = weights.read_bytes()
    weights.write_bytes(held[:-1] + bytes([held[-1] ^ 1]))
    assert refused(capsys, "pack", bundle, tar).rstrip().endswith(f"hired-edge verify {bundle}")
    weights.write_bytes(held)
    (bundle / "extra").touch()
    assert "'extra', which its manifest does not name" in refused(capsys, "pack", bundle, tar)
    (bundle / "extra").unlink()
    (bundle / "manifest.json.sig").write_bytes(b"short")
    assert "has 5 bytes; expected 64" in refused(capsys, "pack", bundle, tar)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["bundle"]


def test_a_file_that_grows_or_shrinks_while_it_is_packed_is_refused(bundle: Path, tmp_path: Path) -> None:
    found = packing.contents(bundle, engines=False)
    path = bundle / "tokenizer.json"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(BundleError, match=r"tokenizer\.json was changed"):
        packing.pack(found, tmp_path / "x.tar")
    path.write_bytes(content + b" ")  # what was named is what is copied
    packing.pack(found, tmp_path / "x.tar")
    with tarfile.open(tmp_path / "x.tar") as tar:
        member = tar.extractfile("tokenizer.json")
        assert member is not None
        assert member.read() == content


def test_places_where_it_cannot_be_written(bundle: Path, tmp_path: Path, capsys: Capture) -> None:
    assert "lies in the bundle" in refused(capsys, "pack", bundle, bundle / "bundle.tar")
    assert "lies in the bundle" in refused(capsys, "pack", bundle, bundle / "engines/../bundle.tar")
    (tmp_path / "there.tar").touch()
    assert "there.tar exists" in refused(capsys, "pack", bundle, tmp_path / "there.tar")
    assert "cannot be written (No such file" in refused(capsys, "pack", bundle, tmp_path / "no/where.tar")
    assert "does not exist" in refused(capsys, "pack", tmp_path / "none", tmp_path / "x.tar")


def test_a_full_disk_leaves_nothing(
    bundle: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    assert "0 MiB free in" in refused(capsys, "pack", bundle, tmp_path / "x.tar")
    monkeypatch.undo()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "x.tar cannot be written (No space left on device)" in refused(capsys, "pack", bundle, tmp_path / "x.tar")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["bundle"]


def test_progress_counts_every_byte(tmp_path: Path) -> None:
    seen: list[int] = []
    found = packing.contents(BUNDLE, engines=False)
    packing.pack(found, tmp_path / "x.tar", seen.append)
    assert sum(seen) == found.bytes == sum(map(len, files(BUNDLE).values()))
