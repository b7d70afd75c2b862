"""engine.json and what is checked before an engine is deserialised.

Engine files here are arbitrary bytes: nothing reads them as engines.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hired_edge import strict
from hired_edge.engine_check import Machine, check_engine_files, check_record, read_engines, rebuild_command
from hired_edge.engine_record import (
    RECORD_NAME,
    GoldenCheck,
    folder_name,
    parse_record,
)
from hired_edge.errors import BundleError
from hired_edge.filenames import check_file_name
from hired_edge.manifest import FileRecord
from tests.tiny.engine_records import CONTENT, DATA, FILES, GRAPH, MACHINE, record, write


def test_a_record_reads_back_as_it_was_written_and_its_engines_pass(tmp_path: Path) -> None:
    write(tmp_path)
    seen: list[int] = []
    assert read_engines(tmp_path, FILES, MACHINE) == record()
    check_engine_files(tmp_path, MACHINE, record().engines, seen.append)
    assert sum(seen) == sum(map(len, CONTENT.values()))
    assert parse_record(strict.dumps(record())) == record()


def test_a_build_without_a_gpu_is_not_refused_for_its_missing_check(tmp_path: Path) -> None:
    write(tmp_path, replace(record(), check=None, device=None, driver=None))
    assert read_engines(tmp_path, FILES, MACHINE).check is None


@given(sm=st.integers(10, 999), version=st.from_regex(r"[0-9]{1,2}(\.[0-9]{1,3}){1,3}", fullmatch=True))
def test_a_folder_name_is_one_part_of_a_path(sm: int, version: str) -> None:
    for module in ("tensorrt", "tensorrt_rtx"):
        name = folder_name(sm, module, version)
        assert check_file_name(name) == name
        assert "/" not in name


def test_folder_names_are_the_documented_ones() -> None:
    assert folder_name(87, "tensorrt", "10.16.2") == "sm87-tensorrt10.16.2"
    assert folder_name(86, "tensorrt_rtx", "1.7.1.116") == "sm86-tensorrt_rtx1.7.1"


OTHERS = [
    Machine("tensorrt_rtx", "10.16.2.10", 87),
    Machine("tensorrt", "10.16.2.11", 87),
    Machine("tensorrt", "10.3.0", 87),
    Machine("tensorrt", "10.16.2.10", 86),
]


@pytest.mark.parametrize("machine", OTHERS, ids=str)
def test_another_module_version_or_sm_is_refused(machine: Machine, tmp_path: Path) -> None:
    write(tmp_path)
    refused(tmp_path, machine)


@pytest.mark.parametrize("machine", OTHERS, ids=str)
def test_a_folder_renamed_to_fit_is_refused(machine: Machine, tmp_path: Path) -> None:
    folder = write(tmp_path)
    if folder.name != machine.folder:
        folder.rename(folder.parent / machine.folder)
    assert str(machine) in refused(tmp_path, machine)


@pytest.mark.parametrize("name", [GRAPH, DATA, "vision/model.onnx"])
def test_another_onnx_file_is_refused(name: str, tmp_path: Path) -> None:
    write(tmp_path)
    assert name in refused(tmp_path, files={**FILES, name: FileRecord(100, "f" * 64)})
    assert name in refused(tmp_path, files={key: value for key, value in FILES.items() if key != name})


def test_a_failed_check_is_refused(tmp_path: Path) -> None:
    write(tmp_path, replace(record(), check=GoldenCheck("failed", {}, {}, "logits differ by 3")))
    assert "logits differ by 3" in refused(tmp_path)


@pytest.mark.parametrize(
    ("errors", "tolerances", "reason"),
    [
        ({"logits": 0.06}, {"logits": 0.05}, ""),
        ({"logits": 0.01}, {"features": 0.05}, ""),
        ({"logits": -1.0}, {"logits": 0.05}, ""),
        ({"logits": 0.01}, {"logits": 0.05}, "but why"),
        ({}, {}, ""),
    ],
)
def test_a_check_cannot_pass_with_an_error_over_its_tolerance_or_with_nothing_compared(
    errors: dict[str, float], tolerances: dict[str, float], reason: str
) -> None:
    with pytest.raises(BundleError):
        GoldenCheck("passed", errors, tolerances, reason)


def test_an_engine_that_is_not_to_be_loaded_is_not_read(tmp_path: Path) -> None:
    (write(tmp_path) / "language.960.engine").unlink()
    vision, language = read_engines(tmp_path, FILES, MACHINE).engines
    check_engine_files(tmp_path, MACHINE, [vision])
    with pytest.raises(BundleError, match="is missing"):
        check_engine_files(tmp_path, MACHINE, [vision, language])


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


ODD = "a\n\x1b[31mb"
"""What would begin a line and colour a terminal."""


def overwrite(folder: Path, place: tuple[str | int, ...], value: object) -> None:
    (folder / RECORD_NAME).write_text(json.dumps(changed(place, value)))


SPOILED: dict[str, Callable[[Path], Any]] = {
    "no engines at all": lambda folder: shutil.rmtree(folder.parent),
    "no folder": lambda folder: shutil.rmtree(folder),
    "no record": lambda folder: (folder / RECORD_NAME).unlink(),
    "no vision engine": lambda folder: (folder / "vision.engine").unlink(),
    "a shorter engine": lambda folder: (folder / "vision.engine").write_bytes(CONTENT["vision.engine"][:-1]),
    "a changed engine": lambda folder: (folder / "vision.engine").write_bytes(b"V" + CONTENT["vision.engine"][1:]),
    "the engines exchanged": lambda folder: (folder / "vision.engine").write_bytes(CONTENT["language.960.engine"]),
    "a folder for an engine": lambda folder: ((folder / "vision.engine").unlink(), (folder / "vision.engine").mkdir()),
    "a linked engine": lambda folder: link(folder / "vision.engine"),
    "a linked record": lambda folder: link(folder / RECORD_NAME),
    "a linked folder": link,
    "all engines linked": lambda folder: link(folder.parent),
    "a record that is not text": lambda folder: (folder / RECORD_NAME).write_bytes(b"\xff\xfe"),
    "an empty record": lambda folder: (folder / RECORD_NAME).write_bytes(b""),
    "half a record": lambda folder: (folder / RECORD_NAME).write_text(strict.dumps(record())[:-30]),
    "a huge record": lambda folder: (folder / RECORD_NAME).write_bytes(b" " * (2**20 + 1)),
    "a folder with an odd name": lambda folder: folder.rename(folder.with_name(ODD)),
    "an odd reason": lambda folder: overwrite(
        folder, ("check",), strict.to_json(GoldenCheck("failed", {}, {}, ODD * 99))
    ),
    "an odd source": lambda folder: overwrite(folder, ("engines", 1, "sources", ODD * 99), "0" * 64),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED.keys())
def test_what_is_missing_changed_or_linked_is_refused(spoil: Callable[[Path], Any], tmp_path: Path) -> None:
    spoil(write(tmp_path))
    refused(tmp_path)


VALUES = [None, True, -1, 0, 2**70, "", "x", "../x", "/etc/passwd", "a/b", [], {}, {"x": None}, [[]], float("1e300")]


def places(data: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(place for key, value in items for place in places(value, (*path, key)))]


def test_a_changed_value_is_refused_or_makes_no_difference_to_what_is_loaded(tmp_path: Path) -> None:
    """Whatever one value of engine.json becomes: a one-line refusal, or the same files, still to be hashed."""
    files = [(engine.file, engine.bytes, engine.sha256) for engine in record().engines]
    refusals = 0
    for place in places(strict.to_json(record()))[1:]:
        for value in VALUES:
            try:
                read = parse_record(json.dumps(changed(place, value)))
                check_record(read, FILES, MACHINE, tmp_path)
            except BundleError as error:
                refusals += 1
                line = str(error)
            else:
                line = "hired-edge build --force"
                assert [(e.file, e.bytes, e.sha256) for e in read.engines] == files or place[-1] in NOT_YET, place
            assert "hired-edge build" in line, line
            assert "--force" in line, line
            assert "\n" not in line, line
    assert refusals > 800


NOT_YET = ("file", "bytes")
"""What only the file itself can show: `check_engine_files`, below and above."""


@pytest.mark.parametrize(("key", "value"), [("file", "other"), ("bytes", 1), ("bytes", 2**62), ("sha256", "0" * 64)])
def test_a_changed_engine_entry_does_not_fit_its_file(key: str, value: object, tmp_path: Path) -> None:
    overwrite(write(tmp_path), ("engines", 0, key), value)
    refused(tmp_path)


def changed(place: tuple[str | int, ...], value: object) -> Any:
    data: Any = strict.to_json(record())
    parent = data
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = value
    return data


@pytest.mark.parametrize("key", strict.to_json(record()))
def test_a_missing_key_is_refused(key: str, tmp_path: Path) -> None:
    folder = write(tmp_path)
    data = strict.to_json(record())
    del data[key]
    (folder / RECORD_NAME).write_text(json.dumps(data))
    refused(tmp_path)


def test_the_rebuild_command_is_one_that_a_shell_takes(tmp_path: Path) -> None:
    bundle = tmp_path / "my bundle"
    bundle.mkdir()
    assert f"run: hired-edge build '{bundle}' --force" in refused(bundle)
    assert rebuild_command(bundle, 86) == f"hired-edge build '{bundle}' --sm 86 --force"


def test_a_record_alone_is_held_against_the_manifest(tmp_path: Path) -> None:
    check_record(record(), FILES, MACHINE, tmp_path)
    assert record().engine(GRAPH) == record().engines[1]
    assert record().engine("another.onnx") is None


def refused(bundle: Path, machine: Machine = MACHINE, files: dict[str, FileRecord] = FILES) -> str:
    with pytest.raises(BundleError) as error:
        check_engine_files(bundle, machine, read_engines(bundle, files, machine).engines)
    assert rebuild_command(bundle) in str(error.value)
    assert str(error.value).isprintable()
    return str(error.value)
