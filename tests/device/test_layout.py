"""What may lie in a bundle: what its manifest and its engines' records name, their signatures, and nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hired_runtime
from hired_edge.bundle import Bundle
from hired_edge.errors import BundleError, InputError
from hired_edge.layout import left_by
from hired_runtime.trt import engines_folder
from tests.tiny import engine_records
from tests.tiny.commands import Capture, accepted, finish, refused, start


@pytest.fixture
def folder(bundle: Path) -> Path:
    """Of engines in `bundle`."""
    return engine_records.write_for(bundle)


def refusal(bundle: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.open(bundle)
    line = str(caught.value)
    assert line.isprintable()
    return line


def test_signatures_and_engines_belong(bundle: Path, folder: Path) -> None:
    for document in (bundle / "manifest.json", folder / "engine.json"):
        document.with_name(f"{document.name}.sig").write_bytes(bytes(64))
    Bundle.open(bundle).verify()
    (bundle / "engines/sm86-tensorrt10.16.2").mkdir()  # empty
    Bundle.open(bundle)


EXTRA = {
    "a file in a folder of engines": "engines/{0}/notes.txt",
    "an engine that the record does not name": "engines/{0}/other.engine",
    "a file in a folder below it": "engines/{0}/deep/er/vision.engine",
    "a file beside the folders": "engines/notes.txt",
    "an engine without a record": "engines/sm86-tensorrt10.16.2/vision.engine",
    "a hidden file": "engines/{0}/.notes",
    "a hidden folder": "engines/.git/config",
    "another signature": "tokenizer.json.sig",
    "a signature in the wrong place": "engines/manifest.json.sig",
    "a deep manifest": "language/manifest.json",
}


@pytest.mark.parametrize("name", EXTRA.values(), ids=EXTRA)
def test_what_nothing_names_is_refused(name: str, bundle: Path, folder: Path) -> None:
    path = bundle / name.format(folder.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    line = refusal(bundle)
    assert name.format(folder.name).split("/.git/")[0] in line
    assert "names" in line or "does not name" in line
    with pytest.raises(BundleError):
        hired_runtime.open(bundle)


def spoiled_record(folder: Path) -> None:
    (folder / "engine.json").write_text("{")


SPOILED: dict[str, Callable[[Path], Any]] = {
    "a record that is none": spoiled_record,
    "a record that is missing": lambda folder: (folder / "engine.json").unlink(),
    "a link to a folder": lambda folder: (folder.parent / "sm86-tensorrt10.16.2").symlink_to(folder),
    "a link to a file": lambda folder: (folder / "link.engine").symlink_to(folder / "vision.engine"),
    "a link to nowhere": lambda folder: (folder.parent / "link").symlink_to("nowhere"),
    "a pipe": lambda folder: os.mkfifo(folder / "pipe"),
    "a pipe for a record": lambda folder: ((folder / "engine.json").unlink(), os.mkfifo(folder / "engine.json")),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_what_is_odd_is_refused_with_the_way_out(
    spoil: Callable[[Path], Any], bundle: Path, folder: Path, capsys: Capture
) -> None:
    spoil(folder)
    assert f"hired-edge build {bundle} --clean" in refusal(bundle)
    assert "removed" in accepted(capsys, "build", bundle, "--clean")
    Bundle.open(bundle)


def test_engines_behind_a_link_are_refused_and_the_link_can_be_removed(
    bundle: Path, folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    shutil.move(bundle / "engines", tmp_path / "engines")
    (bundle / "engines").symlink_to(tmp_path / "engines")
    assert "holds 'engines', which no engine.json names" in refusal(bundle)
    accepted(capsys, "build", bundle, "--clean")
    assert (tmp_path / "engines" / folder.name).is_dir()
    Bundle.open(bundle)


def test_a_file_called_engines_is_refused_and_can_be_removed(bundle: Path, capsys: Capture) -> None:
    (bundle / "engines").write_text("")
    assert "holds 'engines'" in refusal(bundle)
    accepted(capsys, "build", bundle, "--clean")
    Bundle.open(bundle)


@pytest.mark.parametrize("name", ["copy", "a b", "sm86-tensorrt10.16.2", "sm87-tensorrt10.16"])
def test_engines_in_a_folder_of_another_machine_are_refused(
    name: str, bundle: Path, folder: Path, capsys: Capture
) -> None:
    """Their record leads whoever checks it to the folder of its machine: what lies here, nobody would look at."""
    other = Path(shutil.copytree(folder, folder.with_name(name)))
    (other / "vision.engine").write_bytes(b"V" * 600)
    assert f"engines/{name}/engine.json" in refusal(bundle)
    assert "which no engine.json names" in refused(capsys, "verify", bundle, "--files-only")
    folder.rename(folder.with_name(".sm87-tensorrt10.16.2.1.old"))
    assert f"engines/{name}/engine.json" in refusal(bundle)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        (".sm87-tensorrt10.16.2.123.partial", "sm87-tensorrt10.16.2"),
        (".sm87-tensorrt10.16.2.4194304.old", "sm87-tensorrt10.16.2"),
        (".manifest.json.7.partial", "manifest.json"),
        ("sm87-tensorrt10.16.2.123.partial", None),
        (".sm87-tensorrt10.16.2.12a.partial", None),
        (".sm87-tensorrt10.16.2.123.partial.old", None),
        (".123.partial", None),
        ("..123.partial", None),
        (".a/b.1.partial", None),
        (".a.1.partial\n", None),
    ],
)
def test_what_a_killed_writer_leaves_is_known_by_its_name(name: str, meant: str | None) -> None:
    assert left_by(name) == meant


def test_what_a_killed_build_left_is_passed_over_and_the_next_one_removes_it(bundle: Path, folder: Path) -> None:
    left = [
        *(folder.with_name(f".{folder.name}.{pid}.{word}") for pid in (1, 4194303) for word in ("partial", "old")),
        folder.with_name(".sm86-tensorrt10.3.0.12.partial"),
    ]
    for each in left:
        each.mkdir()
        (each / "vision.engine").touch()
    (folder / ".engine.12.partial").touch()
    Bundle.open(bundle)
    with engines_folder.locked(bundle):
        assert not any(each.exists() for each in left)
        assert (folder / "engine.json").is_file()


def test_engines_that_a_killed_build_had_moved_aside_are_put_back(bundle: Path, folder: Path) -> None:
    """It was killed between the two renames."""
    content = (folder / "engine.json").read_bytes()
    folder.rename(folder.with_name(f".{folder.name}.12.old"))
    folder.with_name(f".{folder.name}.12.partial").mkdir()
    Bundle.open(bundle)
    with engines_folder.locked(bundle):
        assert (folder / "engine.json").read_bytes() == content
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


HOLD = """
import sys, time
from pathlib import Path
from hired_runtime.trt.engines_folder import locked
with locked(Path(sys.argv[-1])):
    print("locked", flush=True)
    time.sleep(600)
"""


def test_another_build_is_refused_until_the_first_has_ended_however_it_ends(bundle: Path, capsys: Capture) -> None:
    process = start(bundle, options=["-c", HOLD])
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(InputError, match="another build is writing into"), engines_folder.locked(bundle):
            pass
        assert "another build is writing into" in refused(capsys, "build", bundle, "--clean")
        Bundle.open(bundle)  # an empty folder of engines
    finally:
        process.kill()
        finish(process)
    with engines_folder.locked(bundle):
        pass
    assert not (bundle / "engines").exists()
