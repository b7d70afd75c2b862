"""A bundle on disk: what opening it accepts, and every way in which it may be broken."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from hired_edge.bundle import MAX_MANIFEST_BYTES, Bundle, bundle_bytes, read_manifest, write_manifest
from hired_edge.errors import BundleError
from hired_edge.hashing import file_record
from hired_edge.tensorfile import TensorFile
from tests.tiny.engine_records import write
from tests.tiny.manifests import example_manifest, forge, onnx_bytes, write_bundle


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    write_bundle(folder)
    return folder


def refusal(root: Path, *, verify: bool = True) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.open(root, verify=verify)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_was_written_opens(root: Path) -> None:
    bundle = Bundle.open(str(root))
    assert bundle.manifest == read_manifest(root)
    assert TensorFile(bundle.path("embedding.safetensors"), BundleError).info("weight").shape == (4, 2)
    bundle.verify()


def test_writing_again_gives_the_same_bytes(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_bundle(other)
    assert (other / "manifest.json").read_bytes() == (root / "manifest.json").read_bytes()
    assert not list(root.rglob("*.tmp"))


def test_progress_counts_every_byte(root: Path) -> None:
    seen: list[int] = []
    bundle = Bundle.open(root, on_bytes=seen.append)
    assert sum(seen) == bundle_bytes(bundle.manifest)


def test_sha256_is_the_standard_one(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    record = file_record(tmp_path / "abc")
    assert record.bytes == 3
    # FIPS 180-2, appendix B.1
    assert record.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_engines_are_the_boards_own(root: Path) -> None:
    write(root)
    Bundle.open(root)
    assert write_manifest(root, example_manifest()) == Bundle.open(root).manifest


def test_a_moved_bundle_and_a_link_to_one_open(root: Path, tmp_path: Path) -> None:
    moved = shutil.move(root, tmp_path / "moved")
    (tmp_path / "link").symlink_to(moved)
    Bundle.open(tmp_path / "link")


def test_not_a_bundle(tmp_path: Path) -> None:
    assert "does not exist; expected a bundle's folder" in refusal(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    assert "is a file" in refusal(tmp_path / "file")
    assert "has no manifest.json" in refusal(tmp_path)
    (tmp_path / "manifest.json").mkdir()
    assert "has no manifest.json" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not text"),
        (b"{}", "format_version is None"),
        (b" " * (MAX_MANIFEST_BYTES + 1), "is larger than 16777216 bytes"),
    ],
)
def test_a_corrupt_manifest(root: Path, content: bytes, message: str) -> None:
    (root / "manifest.json").write_bytes(content)
    assert message in refusal(root)


@pytest.mark.parametrize("verify", [True, False])
def test_missing_and_truncated_files(root: Path, verify: bool) -> None:
    path = root / "language/model.onnx.data"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    assert f"model.onnx.data has {size - 1} bytes; expected {size}" in refusal(root, verify=verify)
    path.unlink()
    assert f"model.onnx.data is missing; expected {size} bytes" in refusal(root, verify=verify)
    path.mkdir()
    assert "is not a file" in refusal(root, verify=verify)


def test_an_edited_file_is_found_by_its_hash(root: Path) -> None:
    path = root / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    Bundle.open(root, verify=False)
    assert "tokenizer.json was changed (sha256 " in refusal(root)


def test_an_edited_manifest_is_found_by_verify(root: Path) -> None:
    bundle = Bundle.open(root)
    text = (root / "manifest.json").read_text()
    (root / "manifest.json").write_text(text.replace("seeded noise", "other noise"))
    with pytest.raises(BundleError, match="was edited"):
        bundle.verify()


@pytest.mark.parametrize("name", ["notes.txt", "language/extra.bin", "sub/engines/x", ".hidden", "sub/manifest.json"])
def test_extra_files_are_refused(root: Path, name: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("")
    assert f"holds '{name}', which its manifest does not name" in refusal(root, verify=False)


def test_a_long_list_of_extra_files_is_cut(root: Path) -> None:
    for i in range(9):
        (root / f"extra{i}").write_text("")
    assert "'extra2' and 6 more" in refusal(root)


def test_links_may_not_leave(root: Path, tmp_path: Path) -> None:
    path = root / "tokenizer.json"
    outside = tmp_path / "outside.json"
    shutil.copy(path, outside)
    path.unlink()
    path.symlink_to(outside)
    assert "tokenizer.json is a link out of the bundle" in refusal(root, verify=False)


def test_the_manifest_is_no_link(root: Path, tmp_path: Path) -> None:
    shutil.move(root / "manifest.json", tmp_path / "manifest.json")
    (root / "manifest.json").symlink_to(tmp_path / "manifest.json")
    assert "manifest.json is a link" in refusal(root, verify=False)


def test_a_linked_folder_may_not_leave(root: Path, tmp_path: Path) -> None:
    shutil.move(root / "vision", tmp_path / "vision")
    (root / "vision").symlink_to(tmp_path / "vision")
    assert "is a link out of the bundle" in refusal(root, verify=False)


def test_a_sibling_with_the_same_beginning_is_outside(root: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle2").mkdir()
    shutil.move(root / "tokenizer.json", tmp_path / "bundle2/tokenizer.json")
    (root / "tokenizer.json").symlink_to("../bundle2/tokenizer.json")
    assert "is a link out of the bundle" in refusal(root, verify=False)


def test_links_to_nowhere_and_in_circles(root: Path) -> None:
    path = root / "tokenizer.json"
    path.unlink()
    path.symlink_to("tokenizer.json")
    assert "tokenizer.json" in refusal(root)
    path.unlink()
    path.symlink_to("nowhere")
    assert "tokenizer.json" in refusal(root)


def test_a_link_inside_the_bundle_is_a_file_like_any_other(root: Path) -> None:
    path = root / "tokenizer.json"
    shutil.copy(path, root / "chat_template.jinja")
    write_manifest(root, example_manifest())
    path.unlink()
    path.symlink_to("chat_template.jinja")
    Bundle.open(root)
    with pytest.raises(BundleError, match="is a link; expected files"):
        write_manifest(root, example_manifest())


def test_a_pipe_in_place_of_a_file_does_not_hang(root: Path) -> None:
    (root / "tokenizer.json").unlink()
    os.mkfifo(root / "tokenizer.json")
    assert "is not a file" in refusal(root)


def test_an_unreadable_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    assert "manifest.json cannot be read (Permission denied)" in refusal(root)


@pytest.mark.parametrize(
    "location", ["../secret", "/etc/passwd", "other.data", "a\\..\\b", "", "*/_ORT_MEM_ADDR_/*", "tokenizer.json"]
)
def test_external_data_stays_in_the_declared_files(tmp_path: Path, location: str) -> None:
    with pytest.raises(BundleError):
        write_bundle(tmp_path, location)
    assert not (tmp_path / "manifest.json").exists()


def test_external_data_is_checked_at_opening_too(root: Path) -> None:
    graph = root / "language/model.onnx"
    good, evil = graph.read_bytes(), onnx_bytes("../okenizer.js")
    assert len(evil) < len(good) + 1
    graph.write_bytes(evil)
    manifest = read_manifest(root)
    manifest.files["language/model.onnx"] = file_record(graph)
    forge(root, manifest)
    assert "'../okenizer.js' is not allowed" in refusal(root)


def test_a_graph_that_is_no_protobuf(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    (tmp_path / "vision/model.onnx").write_bytes(b"hello")
    with pytest.raises(BundleError, match=r"model.onnx cannot be read as ONNX"):
        write_manifest(tmp_path, example_manifest())


def test_a_file_that_the_manifest_cannot_name(root: Path) -> None:
    (root / "my file").write_text("")
    with pytest.raises(BundleError, match="'my file' is not allowed"):
        write_manifest(root, example_manifest())
