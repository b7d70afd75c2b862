"""unpack: what a stranger may have put into the file is refused, and nothing of it is left."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from hired_edge.bundle import MAX_MANIFEST_BYTES, Bundle
from hired_edge.manifest import FileRecord
from hired_runtime.trust import packing, unpacking
from hired_runtime.trust.keys import load_private_key
from hired_runtime.trust.signatures import write_signature
from tests.tiny import engine_records, keys
from tests.tiny.commands import Capture, accepted
from tests.tiny.manifests import forge, write_bundle
from tests.tiny.tars import Files, check_refused, files, listed, write


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a few bytes."""
    folder = tmp_path_factory.mktemp("small") / "bundle"
    folder.mkdir()
    write_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return keys.pem(tmp_path_factory.mktemp("keys"))


def test_any_order_will_do(small: Path, tmp_path: Path, capsys: Capture) -> None:
    tar = write(tmp_path / "x.tar", reversed(listed(small)))
    accepted(capsys, "unpack", tar, tmp_path / "out")
    assert files(tmp_path / "out") == files(small)
    Bundle.open(tmp_path / "out")


def test_what_gnu_tar_wrote_is_taken(small: Path, tmp_path: Path, capsys: Capture) -> None:
    if shutil.which("tar") is None:
        return
    for form in ("pax", "gnu", "ustar"):
        tar, out = tmp_path / f"{form}.tar", tmp_path / form
        names = [name for name, _ in listed(small)]
        subprocess.run(["tar", f"--format={form}", "-cf", tar, "-C", small, *names], check=True)
        accepted(capsys, "unpack", tar, out)
        assert files(out) == files(small)
    subprocess.run(["tar", "-cf", tmp_path / "folder.tar", "-C", small.parent, small.name], check=True)
    line = check_refused(capsys, tmp_path, tmp_path / "folder.tar", tmp_path / "out")
    assert "holds a folder, 'bundle/'" in line
    assert "tar --format=pax with the files' names alone" in line


EVIL = {
    "an absolute path": "/tmp/evil",
    "a way out": "../evil",
    "a hidden way out": "language/../../evil",
    "a way that stays": "language/../evil",
    "here": "./evil",
    "an empty part": "language//evil",
    "a hidden file": ".evil",
    "a backslash": "..\\evil",
    "a drive": "C:evil",
    "a new line": "ev\nil",
    "a colour": "\x1b[31mevil",
    "a file more": "evil",
    "a file more in a folder": "language/evil",
    "an engine that no record names": "engines/sm87-tensorrt10.16.2/evil.engine",
    "a scratch folder": "engines/.sm87-tensorrt10.16.2.1.partial/evil",
    "another manifest": "language/manifest.json",
    "another signature": "tokenizer.json.sig",
    "engines themselves": "engines",
    "nothing": "",
    "another case": "Manifest.json",
    "a long one": "x" * 300,
}


@pytest.mark.parametrize("name", EVIL.values(), ids=EVIL)
def test_files_that_nothing_names_are_refused(name: str, small: Path, tmp_path: Path, capsys: Capture) -> None:
    tar = write(tmp_path / "x.tar", [*listed(small), (name, b"evil")])
    line = check_refused(capsys, tmp_path, tar, tmp_path / "out")
    assert "names" in line or "twice" in line
    assert not Path("/tmp/evil").exists()


@dataclass
class Kind:
    type: bytes
    linkname: str = ""
    size: int = 0

    def member(self, name: str) -> tarfile.TarInfo:
        member = tarfile.TarInfo(name)
        member.type, member.linkname, member.size = self.type, self.linkname, self.size
        return member


KINDS = {
    "a symbolic link out": Kind(tarfile.SYMTYPE, "/etc/passwd"),
    "a symbolic link within": Kind(tarfile.SYMTYPE, "tokenizer_config.json"),
    "a hard link": Kind(tarfile.LNKTYPE, "manifest.json"),
    "a device": Kind(tarfile.CHRTYPE),
    "a pipe": Kind(tarfile.FIFOTYPE),
    "a folder": Kind(tarfile.DIRTYPE),
    "a sparse file": Kind(tarfile.GNUTYPE_SPARSE, size=100),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("name", ["tokenizer.json", "language", "evil"])
def test_links_devices_and_the_like_are_refused(
    kind: Kind, name: str, small: Path, tmp_path: Path, capsys: Capture
) -> None:
    """In the place of a file that the manifest names, of one of its folders, and beside them."""
    rest = [(each, data) for each, data in listed(small) if each != name]
    tar = write(tmp_path / "x.tar", rest, [kind.member(name)])
    assert "holds a" in check_refused(capsys, tmp_path, tar, tmp_path / "out")


def without(name: str) -> Callable[[Files], Files]:
    return lambda found: [each for each in found if each[0] != name]


def edited(name: str, edit: Callable[[bytes], bytes]) -> Callable[[Files], Files]:
    return lambda found: [(each, edit(data) if each == name else data) for each, data in found]


EXCHANGED = {"tokenizer.json": "chat_template.jinja", "chat_template.jinja": "tokenizer.json"}
CHANGES: dict[str, tuple[Callable[[Files], Files], str]] = {
    "no manifest": (without("manifest.json"), "has no manifest.json"),
    "a file missing": (without("tokenizer.json"), "has no tokenizer.json"),
    "a file twice": (lambda found: [*found, found[-1]], "twice"),
    "the manifest twice": (lambda found: [found[0], *found], "holds 'manifest.json' twice"),
    "a byte changed": (edited("tokenizer.json", lambda data: b"X" + data[1:]), "tokenizer.json in"),
    "a byte less": (edited("tokenizer.json", lambda data: data[:-1]), "has a tokenizer.json of"),
    "a byte more": (edited("tokenizer.json", lambda data: data + b"."), "has a tokenizer.json of"),
    "a manifest of nothing": (edited("manifest.json", lambda data: b""), "not JSON"),
    "a manifest cut short": (edited("manifest.json", lambda data: data[:-5]), "not JSON"),
    "a manifest too large": (
        edited("manifest.json", lambda data: data + b" " * MAX_MANIFEST_BYTES),
        f"at most {MAX_MANIFEST_BYTES}",
    ),
    "an edited manifest": (edited("manifest.json", lambda data: data.replace(b"vicuna", b"victim")), "was edited"),
    "a signature cut short": (lambda found: [*found, ("manifest.json.sig", bytes(63))], ".sig of 63 bytes"),
    "everything in a folder": (lambda found: [(f"bundle/{name}", data) for name, data in found], "has no manifest"),
    "two files exchanged": (
        lambda found: [(EXCHANGED.get(name, name), data) for name, data in found],
        "has a ",
    ),
}


@pytest.mark.parametrize(("change", "words"), CHANGES.values(), ids=CHANGES)
def test_what_is_not_as_the_manifest_says_is_refused(
    change: Callable[[Files], Files], words: str, small: Path, tmp_path: Path, capsys: Capture
) -> None:
    tar = write(tmp_path / "x.tar", change(listed(small)))
    assert words in check_refused(capsys, tmp_path, tar, tmp_path / "out")


def test_a_hostile_manifest_cannot_name_a_place_elsewhere(small: Path, tmp_path: Path, capsys: Capture) -> None:
    """One that hides its edit from its own digest."""
    manifest = Bundle.open(small).manifest
    own = ("manifest.json", "manifest.json.sig", "engines", "engines/x/engine.json")
    for name in ("../evil", "/tmp/evil", *own, "/".join("a" * 1500)):
        folder = shutil.copytree(small, tmp_path / "copy")
        content = listed(small)
        manifest.files[name] = FileRecord(4, "0" * 64)
        forge(folder, manifest)
        del manifest.files[name]
        content[0] = ("manifest.json", (folder / "manifest.json").read_bytes())
        shutil.rmtree(folder)
        check_refused(capsys, tmp_path, write(tmp_path / "x.tar", [*content, (name, b"evil")]), tmp_path / "out")
        (tmp_path / "x.tar").unlink()
    for clash in ("language", "language/model.onnx/x"):  # a file where a folder is
        folder = shutil.copytree(small, tmp_path / "copy")
        content = listed(small)
        manifest.files[clash] = FileRecord(4, "0" * 64)
        forge(folder, manifest)
        del manifest.files[clash]
        content[0] = ("manifest.json", (folder / "manifest.json").read_bytes())
        shutil.rmtree(folder)
        tar = write(tmp_path / "x.tar", [*content, (clash, b"evil")])
        check_refused(capsys, tmp_path, tar, tmp_path / "out")
        (tmp_path / "x.tar").unlink()


def test_signatures_are_checked_before_anything_is_written(
    small: Path, pair: tuple[Path, Path], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = keys.openssh(tmp_path)[1]
    bundle = Path(shutil.copytree(small, tmp_path / "bundle"))
    monkeypatch.setattr(unpacking, "fresh_folder", lambda _: pytest.fail("it was about to be written"))
    tar = write(tmp_path / "x.tar", listed(bundle))
    line = check_refused(capsys, tmp_path, tar, tmp_path / "out", "--public-key", pair[1])
    assert "has no manifest.json.sig; expected the signature of key.pub (SHA256:" in line
    document = bundle / "manifest.json"
    write_signature(document, document.read_bytes(), load_private_key(pair[0]))
    write(tar, listed(bundle))
    line = check_refused(capsys, tmp_path, tar, tmp_path / "out", "--public-key", other)
    assert "is not the signature of manifest.json" in line
    write(tar, edited("manifest.json", lambda data: b"{" * 10**5)(listed(bundle)))
    line = check_refused(capsys, tmp_path, tar, tmp_path / "out", "--public-key", pair[1])
    assert "is not the signature of manifest.json" in line, "before it is parsed"
    monkeypatch.undo()
    write(tar, listed(bundle))
    told = accepted(capsys, "unpack", tar, tmp_path / "out", "--public-key", other, "--public-key", pair[1])
    assert ", signed by key.pub (SHA256:" in told
    assert files(tmp_path / "out") == files(bundle)


def test_engines_must_be_signed_where_a_key_is_asked_for(
    bundle: Path, pair: tuple[Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    folder = engine_records.write_for(bundle)
    key = load_private_key(pair[0])
    write_signature(bundle / "manifest.json", (bundle / "manifest.json").read_bytes(), key)
    tar = write(tmp_path / "x.tar", listed(bundle))
    accepted(capsys, "unpack", tar, tmp_path / "unsigned")
    line = check_refused(capsys, tmp_path, tar, tmp_path / "out", "--public-key", pair[1])
    assert f"has no engines/{folder.name}/engine.json.sig" in line
    write_signature(folder / "engine.json", (folder / "engine.json").read_bytes(), key)
    write(tar, listed(bundle))
    accepted(capsys, "unpack", tar, tmp_path / "out", "--public-key", pair[1])
    assert files(tmp_path / "out") == files(bundle)
    write(tar, edited(f"engines/{folder.name}/vision.engine", lambda data: b"V" * len(data))(listed(bundle)))
    assert "vision.engine in" in check_refused(capsys, tmp_path, tar, tmp_path / "other", "--public-key", pair[1])


def test_records_of_engines_are_held_to_their_rules(bundle: Path, tmp_path: Path, capsys: Capture) -> None:
    folder = engine_records.write_for(bundle)
    name = f"engines/{folder.name}/engine.json"
    found = listed(bundle)
    for data, words in ((b"{", "is not JSON"), (b"\xff", "is not text"), (b" " * (2**20 + 1), "at most 1048576")):
        tar = write(tmp_path / "x.tar", edited(name, lambda _, data=data: data)(found))
        assert words in check_refused(capsys, tmp_path, tar, tmp_path / "out")
    record = dict(found)[name]
    evil = record.replace(b'"vision.engine"', b'"engine.json.sig"')
    tar = write(tmp_path / "x.tar", edited(name, lambda _: evil)(found))
    assert "'engine.json.sig'" in check_refused(capsys, tmp_path, tar, tmp_path / "out")
    many = [(f"engines/sm{number}/engine.json", record) for number in range(packing.MOST_FOLDERS + 1)]
    tar = write(tmp_path / "x.tar", [*found, *many])
    assert "the engines of 66 machines; expected at most 64" in check_refused(capsys, tmp_path, tar, tmp_path / "out")


def test_places_and_files_that_will_not_do(small: Path, tmp_path: Path, capsys: Capture) -> None:
    tar = write(tmp_path / "x.tar", listed(small))
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    for out in ("there", "link", "x.tar"):
        assert f"{out} exists" in check_refused(capsys, tmp_path, tar, tmp_path / out)
    assert "cannot be written (No such file" in check_refused(capsys, tmp_path, tar, tmp_path / "no/where")
    for name in ("none", "there", "pipe", "/dev/null"):
        line = check_refused(capsys, tmp_path, tmp_path / name, tmp_path / "out")
        assert "cannot be read (No such file" in line or "is not a file" in line
    shutil.copyfile(small / "tokenizer.json", tmp_path / "no.tar")
    assert "no.tar is cut off" in check_refused(capsys, tmp_path, tmp_path / "no.tar", tmp_path / "out")
