"""A signature that is required: by every command and by the Python API, of manifests and of engines (a faked GPU)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hired_runtime
from hired_edge.bundle import read_manifest
from hired_edge.errors import BundleError, InputError
from hired_runtime.trust.keys import load_private_key, load_public_key
from hired_runtime.trust.signatures import trusted, write_signature
from tests.device.conftest import BUNDLE
from tests.tiny import faked_engines, faked_gpu, keys
from tests.tiny.commands import Capture, accepted, check_refusal, finish, refused, refused_in_the_end, start
from tests.tiny.manifests import forge

PICTURE = BUNDLE.parents[2] / "demo/pictures/coffee.jpg"


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return keys.pem(tmp_path_factory.mktemp("vendor"), "vendor")


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return keys.openssh(tmp_path_factory.mktemp("board"), "board")


def sign(path: Path, pair: tuple[Path, Path]) -> None:
    write_signature(path, path.read_bytes(), load_private_key(pair[0]))


@pytest.fixture
def signed(bundle: Path, vendor: tuple[Path, Path]) -> Path:
    sign(bundle / "manifest.json", vendor)
    return bundle


def commands(bundle: Path, folder: Path) -> dict[str, tuple[object, ...]]:
    """Each as it would succeed, `serve` apart."""
    folder.mkdir()
    (folder / "requests.jsonl").write_text(json.dumps({"id": 1, "image": str(PICTURE), "prompt": "What?"}) + "\n")
    (folder / "questions.jsonl").write_text(
        json.dumps({"image": PICTURE.name, "prompt": "What?", "task": "read", "answers": ["x"]}) + "\n"
    )
    shutil.copy(PICTURE, folder)
    return {
        "run": ("run", bundle, "--prompt", "What?", "--max-new-tokens", 1),
        "show": ("show", bundle, "--image", PICTURE, "-o", folder / "kept.png", "--visual-tokens", "20%"),
        "batch": ("batch", bundle, folder / "requests.jsonl", "-o", folder / "answers", "--max-new-tokens", 1),
        "eval": ("eval", bundle, folder, "--report", folder / "report", "--budgets", "20%", "--max-new-tokens", 1),
        "inspect": ("inspect", bundle),
        "pack": ("pack", bundle, folder / "bundle.tar"),
    }


def test_every_command_takes_what_is_signed_and_refuses_the_rest(
    signed: Path, vendor: tuple[Path, Path], board: tuple[Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    (signed / "manifest.json.sig").rename(tmp_path / "signature")
    for argv in commands(signed, tmp_path / "data").values():
        assert "manifest.json.sig is missing" in refused(capsys, *argv, "--require-signature", vendor[1])
    (tmp_path / "signature").rename(signed / "manifest.json.sig")
    for argv in commands(signed, tmp_path / "more").values():
        assert "is not the signature of manifest.json" in refused(capsys, *argv, "--require-signature", board[1])
        accepted(capsys, *argv, "--require-signature", board[1], "--require-signature", vendor[1])


def test_chat_and_serve_refuse_before_anything_is_said_or_heard(
    signed: Path, board: tuple[Path, Path], capsys: Capture
) -> None:
    required = ("--require-signature", board[1])
    assert "is not the signature of manifest.json" in refused(capsys, "chat", signed, *required)
    assert "is not the signature of manifest.json" in refused(capsys, "serve", signed, "--port", 0, *required)
    assert "is not the signature of manifest.json" in refused(capsys, "build", signed, "--sm", 86, *required)
    assert "is not the signature of manifest.json" in refused(capsys, "sign", signed, "--key", board[0], *required)


def test_each_budget_of_a_profile_asks_for_the_signature_in_its_own_process(
    signed: Path, vendor: tuple[Path, Path], board: tuple[Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    options = ("--image", PICTURE, "--budgets", "20%", "--iterations", 1, "--warmup", 0, "--max-new-tokens", 1)
    argv = ("profile", signed, *options, "-o", tmp_path / "profile", "--require-signature")
    assert "is not the signature" in refused(capsys, *argv, board[1])
    accepted(capsys, *argv, vendor[1])


def test_a_measurement_in_another_process_asks_for_the_signature_too(
    signed: Path, vendor: tuple[Path, Path], board: tuple[Path, Path]
) -> None:
    from hired_runtime.measured_memory import Job, measure

    with pytest.raises(BundleError, match="is not the signature"):
        measure(Job(str(signed), "20%", (load_public_key(board[1]),)))


def test_the_python_api_takes_paths_and_keys(signed: Path, vendor: tuple[Path, Path], board: tuple[Path, Path]) -> None:
    hired_runtime.open(signed, visual_tokens="20%", public_keys=[vendor[1]]).close()
    hired_runtime.open(signed, visual_tokens="20%", public_keys=[str(board[1]), load_public_key(vendor[1])]).close()
    with pytest.raises(BundleError, match=r"manifest\.json\.sig is not the signature"):
        hired_runtime.open(signed, public_keys=[board[1]])
    with pytest.raises(BundleError, match=r"manifest\.json\.sig is missing"):
        hired_runtime.open(BUNDLE, public_keys=[vendor[1]])
    with pytest.raises(InputError, match="no public key"):
        hired_runtime.open(signed, public_keys=[])
    with pytest.raises(InputError, match="is a private key"):
        hired_runtime.open(signed, public_keys=[vendor[0]])


def test_a_key_that_is_none_is_refused_before_the_bundle_is_looked_at(tmp_path: Path, capsys: Capture) -> None:
    line = refused(capsys, "run", tmp_path / "none", "--prompt", "What?", "--require-signature", tmp_path / "key")
    assert "key cannot be read (No such file or directory)" in line


def test_a_file_that_changed_under_a_good_signature_is_refused(
    signed: Path, vendor: tuple[Path, Path], capsys: Capture
) -> None:
    path = signed / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:-1] + b" ")
    line = refused(capsys, "run", signed, "--prompt", "What?", "--require-signature", vendor[1])
    assert "tokenizer.json was changed" in line


def test_an_older_signed_bundle_is_taken(signed: Path, vendor: tuple[Path, Path], tmp_path: Path) -> None:
    """What a signature does not say (docs/trust.md): that it is the newest. The digest of a manifest does."""
    older = shutil.copytree(signed, tmp_path / "older")
    manifest = read_manifest(signed)
    manifest.quantisation_errors["a newer one"] = 0.5
    forge(signed, manifest)
    sign(signed / "manifest.json", vendor)
    check = trusted([vendor[1]])
    assert read_manifest(older, check).digest != read_manifest(signed, check).digest


class Gpu:
    """A bundle with faked engines on a faked GPU, whose deserialisations are counted."""

    def __init__(self, bundle: Path, patch: pytest.MonkeyPatch) -> None:
        faked_gpu.install(patch)
        self.bundle, self.folder = bundle, faked_engines.build(bundle)
        self.record = self.folder / "engine.json"
        self.deserialised = 0
        load = faked_gpu.FakedRuntime.deserialize_cuda_engine

        def counted(runtime: Any, content: memoryview) -> Any:
            self.deserialised += 1
            return load(runtime, content)

        patch.setattr(faked_gpu.FakedRuntime, "deserialize_cuda_engine", counted)

    def open(self, *public_keys: Path) -> None:
        hired_runtime.open(self.bundle, visual_tokens="20%", images=1, public_keys=public_keys or None).close()

    def refused(self, words: str, *public_keys: Path) -> str:
        """Nothing was deserialised before it was."""
        before = self.deserialised
        with pytest.raises(BundleError) as caught:
            self.open(*public_keys)
        assert words in str(caught.value)
        assert self.deserialised == before
        return str(caught.value)


@pytest.fixture
def gpu(signed: Path, monkeypatch: pytest.MonkeyPatch) -> Gpu:
    return Gpu(signed, monkeypatch)


def test_engines_on_a_faked_gpu_must_be_signed_too(
    gpu: Gpu, vendor: tuple[Path, Path], board: tuple[Path, Path]
) -> None:
    gpu.open()
    line = gpu.refused("engine.json.sig is missing", vendor[1], board[1])
    assert line.endswith(f"sign it: hired-edge sign {gpu.bundle} --engines --key KEY")
    sign(gpu.record, board)
    gpu.refused("engine.json.sig is not the signature of engine.json", vendor[1])
    gpu.refused("manifest.json.sig is not the signature of manifest.json", board[1])
    before = gpu.deserialised
    gpu.open(vendor[1], board[1])
    assert gpu.deserialised == before + 2


def spoil_engine(gpu: Gpu) -> None:
    path = gpu.folder / "vision.engine"
    path.write_bytes(path.read_bytes()[:-1] + b" ")


def spoil_the_other_engine(gpu: Gpu) -> None:
    """The second to be deserialised: by then the first must not have been."""
    (path,) = gpu.folder.glob("language.*.engine")
    path.write_bytes(path.read_bytes()[:-1] + b" ")


def spoil_record(gpu: Gpu) -> None:
    gpu.record.write_bytes(gpu.record.read_bytes() + b"\n")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_engine, "vision.engine was changed"),
        (spoil_the_other_engine, ".engine was changed"),
        (spoil_record, "is not the signature of engine.json"),
    ],
)
def test_what_changed_after_it_was_signed_is_not_deserialised_on_a_faked_gpu(
    gpu: Gpu, vendor: tuple[Path, Path], board: tuple[Path, Path], spoil: Callable[[Gpu], None], words: str
) -> None:
    sign(gpu.record, board)
    gpu.open(vendor[1], board[1])
    spoil(gpu)
    gpu.refused(words, vendor[1], board[1])


def test_an_engine_is_hashed_at_every_opening_on_a_faked_gpu(gpu: Gpu) -> None:
    """No cache knows an engine: not even one whose times were put back."""
    gpu.open()
    path = gpu.folder / "vision.engine"
    status, content = path.stat(), path.read_bytes()
    assert b'"profiles"' in content
    path.write_bytes(content.replace(b'"profiles"', b'"PROFILES"'))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    gpu.refused("vision.engine was changed")


def test_an_engine_that_is_replaced_once_it_was_hashed_is_not_what_is_deserialised_on_a_faked_gpu(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes that were hashed are those that are deserialised, whatever lies at the path by then."""
    seen: list[bytes] = []
    load = faked_gpu.FakedRuntime.deserialize_cuda_engine
    good = {path.name: path.read_bytes() for path in gpu.folder.glob("*.engine")}

    def replaced(runtime: Any, content: memoryview) -> Any:
        for path in gpu.folder.glob("*.engine"):
            path.with_suffix(".evil").write_bytes(b"evil")
            path.with_suffix(".evil").replace(path)
        seen.append(bytes(content))
        return load(runtime, content)

    monkeypatch.setattr(faked_gpu.FakedRuntime, "deserialize_cuda_engine", replaced)
    gpu.open()
    assert len(seen) == 2
    assert set(seen) <= set(good.values())


def test_verify_tells_of_engines_on_a_faked_gpu_and_runs_none_that_is_not_signed(
    gpu: Gpu, vendor: tuple[Path, Path], board: tuple[Path, Path], capsys: Capture
) -> None:
    both = ("--public-key", vendor[1], "--public-key", board[1])
    assert "engine.json: no signature" in accepted(capsys, "verify", gpu.bundle, "--files-only", *both)
    before = gpu.deserialised
    assert "engine.json.sig is missing" in refused_in_the_end(capsys, "verify", gpu.bundle, *both)
    assert "golden" in accepted(capsys, "verify", gpu.bundle, *both, "--backend", "onnxruntime")
    assert gpu.deserialised == before
    accepted(capsys, "sign", gpu.bundle, "--engines", "--key", board[0], "--require-signature", vendor[1])
    assert "engine.json: by board.pub (SHA256:" in accepted(capsys, "verify", gpu.bundle, *both)
    assert gpu.deserialised == before + 2


def test_without_cryptography_a_bundle_opens_and_a_required_signature_is_refused(
    signed: Path, vendor: tuple[Path, Path], tmp_path: Path
) -> None:
    program = "import sys; sys.modules['cryptography'] = None\n"
    program += "from hired_edge.cli import main; sys.exit(main(sys.argv[3:]))"
    argv = ("run", signed, "--prompt", "What?", "--max-new-tokens", 1)
    status, _, stderr = finish(start(*argv, options=["-c", program]))
    assert status == 0, stderr
    line = check_refusal(*finish(start(*argv, "--require-signature", vendor[1], options=["-c", program])))
    assert line.endswith("run: pip install 'hired-edge[sign]'")
