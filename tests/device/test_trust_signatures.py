"""sign and verify: what is signed, by whom, what openssl says of it, and every signature that is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from hired_edge.bundle import Bundle, read_manifest
from hired_edge.errors import BundleError
from hired_edge.hashing import file_record
from hired_runtime.trust.keys import load_private_key, load_public_key
from hired_runtime.trust.signatures import SIGNATURE_BYTES, trusted, write_signature
from tests.tiny import engine_records, keys
from tests.tiny.commands import Capture, accepted, refused, refused_in_the_end
from tests.tiny.manifests import forge

KINDS = {"PEM": keys.pem, "OpenSSH": keys.openssh}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return keys.pem(tmp_path)


def signature(bundle: Path) -> Path:
    return bundle / "manifest.json.sig"


def openssl_verifies(document: Path, public: Path) -> bool:
    done = subprocess.run(
        [
            *["openssl", "pkeyutl", "-verify", "-pubin", "-rawin", "-inkey"],
            public,
            "-in",
            document,
            "-sigfile",
            f"{document}.sig",
        ],
        capture_output=True,
        text=True,
    )
    assert (done.returncode == 0) == ("Verified Successfully" in done.stdout)
    return done.returncode == 0


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_what_is_signed_verifies(
    make: Callable[[Path], tuple[Path, Path]], bundle: Path, tmp_path: Path, capsys: Capture
) -> None:
    private, public = make(tmp_path)
    fingerprint = load_public_key(public).fingerprint
    out = accepted(capsys, "sign", bundle, "--key", private)
    assert out.endswith(f"signed    {signature(bundle)} by {private.name} ({fingerprint})\n")
    assert signature(bundle).stat().st_size == SIGNATURE_BYTES
    lines = accepted(capsys, "verify", bundle, "--files-only", "--public-key", public).splitlines()
    assert lines[1] == f"signed  manifest.json: by {public.name} ({fingerprint})"
    assert lines == accepted(capsys, "verify", bundle, "--public-key", public).splitlines()[:2]
    assert "golden" not in "".join(lines)


def test_openssl_verifies_what_we_sign_and_we_what_it_signs(
    bundle: Path, pair: tuple[Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    private, public = pair
    accepted(capsys, "sign", bundle, "--key", private)
    if not keys.HAS_OPENSSL:
        return
    manifest, ours = bundle / "manifest.json", signature(bundle).read_bytes()
    assert openssl_verifies(manifest, public)
    assert not openssl_verifies(manifest, keys.pem(tmp_path, "other")[1])
    signature(bundle).unlink()
    keys.run("openssl", "pkeyutl", "-sign", "-inkey", private, "-rawin", "-in", manifest, "-out", signature(bundle))
    assert signature(bundle).read_bytes() == ours, "Ed25519 is deterministic"
    accepted(capsys, "verify", bundle, "--files-only", "--public-key", public)


def test_signing_again_says_what_became_of_the_signature(
    bundle: Path, pair: tuple[Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    other, _ = keys.openssh(tmp_path)
    words = []
    for key in (pair[0], pair[0], other, other, pair[0]):
        words.append(accepted(capsys, "sign", bundle, "--key", key).splitlines()[-1].split()[0])
    assert words == ["signed", "unchanged", "replaced", "unchanged", "replaced"]
    signature(bundle).write_bytes(b"no signature")
    assert "replaced" in accepted(capsys, "sign", bundle, "--key", other)
    assert [path.name for path in bundle.iterdir() if path.name.startswith(".")] == []


def test_any_of_several_keys_will_do(bundle: Path, pair: tuple[Path, Path], tmp_path: Path, capsys: Capture) -> None:
    accepted(capsys, "sign", bundle, "--key", pair[0])
    others = [keys.pem(tmp_path, f"other{number}")[1] for number in range(5)]
    asked = [part for key in (*others, pair[1]) for part in ("--public-key", key)]
    assert f"by {pair[1].name} (" in accepted(capsys, "verify", bundle, "--files-only", *asked)
    line = refused(capsys, "verify", bundle, "--files-only", *asked[:-2])
    assert " or other2.pub (SHA256:" in line
    assert " or 2 more; expected" in line


def test_what_is_not_sound_is_not_signed(bundle: Path, pair: tuple[Path, Path], capsys: Capture) -> None:
    path = bundle / "tokenizer.json"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"!")
    assert "tokenizer.json was changed" in refused(capsys, "sign", bundle, "--key", pair[0])
    path.write_bytes(content)
    (bundle / "extra").touch()
    assert "which its manifest does not name" in refused(capsys, "sign", bundle, "--key", pair[0])
    assert not signature(bundle).exists()


def test_a_missing_signature_is_refused_with_the_command(
    bundle: Path, pair: tuple[Path, Path], capsys: Capture
) -> None:
    line = refused(capsys, "verify", bundle, "--public-key", pair[1])
    assert line.startswith(f"{signature(bundle)} is missing; expected the signature of {pair[1].name} (SHA256:")
    assert line.endswith(f"sign it: hired-edge sign {bundle} --key KEY")
    assert "signed" not in accepted(capsys, "verify", bundle, "--files-only")


def test_signatures_that_are_none(bundle: Path, pair: tuple[Path, Path], tmp_path: Path, capsys: Capture) -> None:
    accepted(capsys, "sign", bundle, "--key", pair[0])
    path, good = signature(bundle), signature(bundle).read_bytes()
    asked = ("verify", bundle, "--files-only", "--public-key", pair[1])
    for length in (0, 1, 63):
        path.write_bytes(good[:length])
        assert f"has {length} bytes; expected 64" in refused(capsys, *asked)
    path.write_bytes(good + b"\n")
    assert "has more bytes; expected 64" in refused(capsys, *asked)
    for at in range(0, 64, 7):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert "is not the signature of manifest.json by key.pub" in refused(capsys, *asked)
    shutil.move(path, tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert "is a link" in refused(capsys, *asked)
    path.unlink()
    path.mkdir()
    assert "manifest.json.sig" in refused(capsys, *asked)
    path.rmdir()
    os.mkfifo(path)
    assert "is not a file" in refused(capsys, *asked)


def test_malleable_signatures_are_refused(bundle: Path, pair: tuple[Path, Path], capsys: Capture) -> None:
    """RFC 8032, 5.1.7: S must be below the group's order L, or S + L would be another signature of the same bytes."""
    accepted(capsys, "sign", bundle, "--key", pair[0])
    good = signature(bundle).read_bytes()
    order = 2**252 + 27742317777372353535851937790883648493
    other = int.from_bytes(good[32:], "little") + order
    signature(bundle).write_bytes(good[:32] + other.to_bytes(32, "little"))
    assert "is not the signature" in refused(capsys, "verify", bundle, "--files-only", "--public-key", pair[1])


def test_another_manifest_under_the_signature_is_refused(
    bundle: Path, pair: tuple[Path, Path], capsys: Capture
) -> None:
    """An edit that hides itself from the manifest's own digest."""
    accepted(capsys, "sign", bundle, "--key", pair[0])
    path = bundle / "tokenizer_config.json"
    manifest = read_manifest(bundle)
    path.write_bytes(path.read_bytes() + b" ")
    manifest.files["tokenizer_config.json"] = file_record(path)
    forge(bundle, manifest)
    assert "not checked (--public-key)" in accepted(capsys, "verify", bundle, "--files-only")
    assert "is not the signature of manifest.json" in refused(capsys, "verify", bundle, "--public-key", pair[1])


def test_a_signature_of_white_space_is_of_white_space(bundle: Path, pair: tuple[Path, Path], capsys: Capture) -> None:
    """The bytes are signed, not what they say."""
    accepted(capsys, "sign", bundle, "--key", pair[0])
    path = bundle / "manifest.json"
    path.write_bytes(path.read_bytes() + b"\n")
    Bundle.open(bundle)
    assert "is not the signature" in refused(capsys, "verify", bundle, "--files-only", "--public-key", pair[1])


def test_the_bytes_that_are_parsed_are_those_that_were_checked(bundle: Path, pair: tuple[Path, Path]) -> None:
    """Another program that replaces the manifest all the time never gets one in that is not signed."""
    private, public = load_private_key(pair[0]), load_public_key(pair[1])
    path, good = bundle / "manifest.json", (bundle / "manifest.json").read_bytes()
    write_signature(path, good, private)
    manifest, evil = read_manifest(bundle), good.replace(b'"checkpoint": "', b'"checkpoint": "evil-')
    forge(bundle, manifest)
    assert path.read_bytes() == good
    stop, check, seen = threading.Event(), trusted([public]), {"good": 0, "refused": 0}
    (bundle.parent / "evil").write_bytes(evil)
    (bundle.parent / "good").write_bytes(good)

    def swap() -> None:
        while not stop.is_set():
            for name in ("evil", "good"):
                os.link(bundle.parent / name, bundle.parent / "next")
                os.replace(bundle.parent / "next", path)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(300):
            try:
                assert read_manifest(bundle, check).checkpoint == manifest.checkpoint
                seen["good"] += 1
            except BundleError as error:
                assert "is not the signature" in error.got  # noqa: PT017
                seen["refused"] += 1
    finally:
        stop.set()
        thread.join()
    assert all(seen.values()), seen


def test_a_signature_that_cannot_be_written_leaves_the_old_one(
    bundle: Path, pair: tuple[Path, Path], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted(capsys, "sign", bundle, "--key", pair[0])
    good = signature(bundle).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    line = refused_in_the_end(capsys, "sign", bundle, "--key", keys.openssh(tmp_path)[0])
    assert "manifest.json.sig cannot be written (No space left on device)" in line
    assert signature(bundle).read_bytes() == good
    Bundle.open(bundle)


def test_what_a_killed_signing_leaves_is_passed_over_and_removed(
    bundle: Path, pair: tuple[Path, Path], capsys: Capture
) -> None:
    left = bundle / ".manifest.json.123.partial"
    left.write_bytes(b"half")
    Bundle.open(bundle)
    accepted(capsys, "sign", bundle, "--key", pair[0])
    assert not left.exists()


def test_engines_are_signed_by_their_record(
    bundle: Path, pair: tuple[Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    """A board's key; the records here are of engines that nothing reads as engines."""
    board, public = keys.pem(tmp_path, "board")
    folder = engine_records.write(bundle)
    line = refused_in_the_end(capsys, "sign", bundle, "--engines", "--key", board)
    assert "vision.engine was built from another vision/model.onnx" in line, "of another bundle"
    engine_records.write_for(bundle)
    accepted(capsys, "sign", bundle, "--key", pair[0])
    asked = ("verify", bundle, "--files-only", "--public-key", pair[1])
    assert f"signed  {folder.name}/engine.json: no signature" in accepted(capsys, *asked)
    out = accepted(capsys, "sign", bundle, "--engines", "--key", board, "--require-signature", pair[1])
    assert f"signed    {folder}/engine.json.sig by board.pem (SHA256:" in out
    if keys.HAS_OPENSSL:
        assert openssl_verifies(folder / "engine.json", public)
    assert f"{folder.name}/engine.json: by none of these keys" in accepted(capsys, *asked)
    assert f"{folder.name}/engine.json: by board.pub (SHA256:" in accepted(capsys, *asked, "--public-key", public)
    (folder / "vision.engine").write_bytes(b"VISION" * 100)
    assert "vision.engine was changed" in refused_in_the_end(capsys, *asked)
    assert "vision.engine was changed" in refused_in_the_end(capsys, "sign", bundle, "--engines", "--key", board)


def test_engines_without_any_are_refused(bundle: Path, pair: tuple[Path, Path], capsys: Capture) -> None:
    assert "has no engines" in refused_in_the_end(capsys, "sign", bundle, "--engines", "--key", pair[0])
