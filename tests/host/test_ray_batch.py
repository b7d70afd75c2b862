"""`hired-edge batch --ray` on real clusters: the answers of one process, whatever dies on the way."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from benchmarks.ray_machines import Machines, machines
from demo.scenes.__main__ import HELD_OUT_SEED, write
from tests.host.bundles import Bundles
from tests.host.near_ties import TOLERANCE as FP16_TOLERANCE
from tests.host.ray_outputs import check_as_one, lines
from tests.tiny.batches import noise_requests, read_rows, without_cached, write_rows
from tests.tiny.commands import Capture, accepted, check_refusal, finish, refused, start
from tests.tiny.processes import PATIENCE_S

ROOT = Path(__file__).parents[2]
GOLDEN, DEMO = ROOT / "tests/golden/bundle", ROOT / "demo/bundle"
ONE_THREAD = ("--threads", 1)
WAITING = re.compile("hired-edge: no worker has said anything for 60 s: .*\n")
"""What a machine that is busy enough makes the command say."""


def ended(*arguments: object, **options: Any) -> dict[str, Any]:
    """The summary of a run that ends well and says nothing else."""
    return summary_of(start("batch", *arguments, *ONE_THREAD, "--json", **options))


def summary_of(run: subprocess.Popen[str]) -> dict[str, Any]:
    status, stdout, stderr = finish(run)
    assert (status, WAITING.sub("", stderr)) == (0, "")
    return json.loads(stdout)


@pytest.mark.slow
def test_a_cluster_of_this_machine_answers_as_one_process_does(tmp_path: Path, capsys: Capture) -> None:
    path = noise_requests(tmp_path / "noise")
    bad = [b"{", {"id": 0, "prompt": "?"}, {"id": 77, "image": "nowhere.png", "prompt": "?"}, {"id": 78}]
    requests = write_rows(path, [*read_rows(path), *bad])
    few = (GOLDEN, requests, "--max-new-tokens", 3, "--temperature", 0.7)
    accepted(capsys, "batch", *few, *ONE_THREAD, "-o", tmp_path / "one.jsonl")
    summary = ended(*few, "-o", tmp_path / "many", "--ray", "local", "--workers", 1, "--part-rows", 5)
    assert {**summary, "seconds": 0, "rows_per_second": 0} == {
        "rows": 16,
        "answers": 12,
        "errors": 4,
        "asked_now": 16,
        "seconds": 0,
        "rows_per_second": 0,
    }
    assert without_cached(lines(tmp_path / "many")) == without_cached(read_rows(tmp_path / "one.jsonl"))
    names = {path.name for path in (tmp_path / "many").iterdir()}
    assert names == {"_commits.jsonl", *(f"part-00000{number}.parquet" for number in range(4))}
    # A finished output asks nothing, and no cluster either.
    again = accepted(capsys, "batch", *few, "-o", tmp_path / "many", "--ray", "nowhere:1", "--part-rows", 5, "--json")
    assert (json.loads(again)["answers"], json.loads(again)["errors"], json.loads(again)["asked_now"]) == (12, 4, 0)


def test_what_cannot_be_done_on_a_cluster_is_refused(tmp_path: Path, capsys: Capture) -> None:
    requests = noise_requests(tmp_path / "noise")
    out = ("-o", tmp_path / "out")
    for options, message in (
        (("--ray", "127.0.0.1:9"), "--ray 127.0.0.1:9: nobody answers there (Connection refused)"),
        (("--ray", "nowhere.invalid:6379"), "--ray nowhere.invalid:6379: nobody answers there"),
        (("--ray", "everywhere"), "--ray everywhere; expected local, auto, or HOST:PORT"),
        (("--ray", "ray://127.0.0.1:10001"), "Ray Data does not run through Ray's client"),
        (("--workers", 2), "--workers without --ray"),
        (("--part-rows", 2), "--part-rows without --ray"),
        (("--ray", "local", "--workers", 0), "--workers 0; expected 1 or more"),
        (("--ray", "local", "--visual-tokens", 673), "673 visual tokens asked for"),
    ):
        assert message in refused(capsys, "batch", GOLDEN, requests, *out, *options)
    assert not (tmp_path / "out").exists()
    pyarrow.parquet.write_table(pyarrow.table({"id": [1], "prompt": ["?"]}), tmp_path / "requests.parquet")
    assert "requests.parquet without --ray" in refused(capsys, "batch", GOLDEN, tmp_path / "requests.parquet", *out)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,000 questions about 200 pictures that the demonstration model was not trained on."""
    folder = tmp_path_factory.mktemp("scenes") / "scenes"
    write(folder, HELD_OUT_SEED, 200, 10)
    rows = read_rows(folder / "questions.jsonl")
    return write_rows(folder / "requests.jsonl", [{key: row[key] for key in ("id", "image", "prompt")} for row in rows])


@pytest.fixture(scope="module")
def one(scenes: Path) -> list[dict[str, Any]]:
    """What one process says to them."""
    ended(DEMO, scenes, "-o", scenes.with_name("one.jsonl"))
    return read_rows(scenes.with_name("one.jsonl"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Machines]:
    with machines(3) as found:
        yield found


def wait_for_parts(folder: Path, count: int) -> None:
    end = time.monotonic() + PATIENCE_S
    while len(list(folder.glob("part-*"))) < count:
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
def test_a_text_that_is_another_one_is_found_unless_it_parts_at_a_near_tie(
    scenes: Path, one: list[dict[str, Any]]
) -> None:
    other = [dict(line) for line in one]
    other[7]["text"] += " card"
    check_as_one(other, one, scenes, DEMO, tolerance=2.0)  # anything is a near-tie
    with pytest.raises(AssertionError, match=r"card' parts from .* where no two logits are a near-tie"):
        check_as_one(other, one, scenes, DEMO)
    for line in other[:21]:
        line["text"] = "?"
    with pytest.raises(AssertionError, match="21 rows are other ones, from row 1 on"):
        check_as_one(other, one, scenes, DEMO)


@pytest.mark.slow
def test_many_nodes_answer_as_one_process_does(
    cluster: Machines, scenes: Path, one: list[dict[str, Any]], tmp_path: Path
) -> None:
    summary = ended(DEMO, scenes, "-o", tmp_path / "out", "--ray", cluster.address)
    assert (summary["rows"], summary["answers"], summary["errors"]) == (2000, 2000, 0)
    check_as_one(lines(tmp_path / "out"), one, scenes, DEMO)


@pytest.mark.slow
def test_a_node_that_is_killed_loses_and_repeats_no_row(
    cluster: Machines, scenes: Path, one: list[dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run = start("batch", DEMO, scenes, "-o", out, "--ray", cluster.address, *ONE_THREAD, "--json")
    wait_for_parts(out, 15)
    assert cluster.workers(0)
    here = len(list(out.glob("part-*")))
    cluster.kill(0)
    summary = summary_of(run)
    cluster.add()
    assert here < 50  # of 63, of which a worker has two at a time: it was in the middle of some
    assert (summary["answers"], summary["errors"]) == (2000, 0)
    check_as_one(lines(out), one, scenes, DEMO)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_is_stopped_goes_on(
    number: signal.Signals, cluster: Machines, scenes: Path, one: list[dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run = start("batch", DEMO, scenes, "-o", out, "--ray", cluster.address, *ONE_THREAD)
    wait_for_parts(out, 10)
    os.killpg(run.pid, number)
    status, _, stderr = finish(run)
    here = {path.name: path.read_bytes() for path in out.glob("part-*")}
    assert 10 <= len(here) < 63
    if number == signal.SIGINT:
        assert status == 130
        stderr = WAITING.sub("", stderr)
        assert stderr.startswith("hired-edge: interrupted: ")
        assert stderr.endswith(" of 2000 rows are answered; the same command goes on from there\n")
    whole = sum(pyarrow.parquet.read_metadata(path).num_rows for path in out.glob("part-*"))
    # The same command, on another cluster: what a part holds is not asked again.
    summary = ended(DEMO, scenes, "-o", out, "--ray", "local")
    assert (summary["rows"], summary["answers"], summary["asked_now"]) == (2000, 2000, 2000 - whole)
    assert {name: (out / name).read_bytes() for name in here} == here
    check_as_one(lines(out), one, scenes, DEMO)


FAULTS = """
import os, signal, sys

def fault(event, arguments):
    if event == "open" and str(arguments[0]).endswith(("deadly.png", "deadly/tokenizer.json")):
        os.kill(os.getpid(), signal.SIGSEGV)
    if event == "open" and str(arguments[0]).endswith("failing.png"):
        from hired_edge.errors import BundleError
        raise BundleError("the engine has failed", expected="it not to", fix="begin again")

sys.addaudithook(fault)
"""


@pytest.fixture
def faults(tmp_path: Path) -> Path:
    """A folder to put in front of Python's path."""
    folder = tmp_path / "faults"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(FAULTS)
    return folder


@pytest.mark.slow
def test_a_row_that_kills_its_process_by_a_faked_fault_is_an_error_row(
    faults: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = noise_requests(tmp_path / "noise")
    rows = read_rows(path)
    for name, at in (("deadly", 2), ("failing", 9)):
        shutil.copy(path.parent / "0.png", path.parent / f"{name}.png")
        rows.insert(at, {"id": 100 + at, "image": f"{name}.png", "prompt": "?"})
    requests = write_rows(path, rows)
    out, few = tmp_path / "out", ("--max-new-tokens", 2, "--part-rows", 4, "--ray", "local")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(faults)
        summary = ended(GOLDEN, requests, "-o", out, *few)
    assert (summary["answers"], summary["errors"]) == (12, 2)
    found = lines(out)
    died = "the process that was to answer it has died, each time that it was asked; expected an answer"
    assert (found[2], found[9]["id"]) == ({"id": 102, "error": died}, 109)
    assert ": the engine has failed, each time that it was asked" in found[9]["error"]
    accepted(capsys, "batch", GOLDEN, requests, "-o", tmp_path / "one.jsonl", "--max-new-tokens", 2, *ONE_THREAD)
    sound = [line for line in read_rows(tmp_path / "one.jsonl") if line["id"] < 100]
    assert without_cached([line for line in found if "error" not in line]) == without_cached(sound)


@pytest.mark.slow
def test_a_bundle_that_kills_whoever_opens_it_by_a_faked_fault_ends_the_run(
    faults: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = noise_requests(tmp_path / "noise")
    shutil.copytree(GOLDEN, tmp_path / "deadly")
    monkeypatch.syspath_prepend(faults)
    run = start("batch", tmp_path / "deadly", requests, "-o", tmp_path / "out", "--ray", "local", "--workers", 1)
    status, stdout, stderr = finish(run)
    line = check_refusal(status, stdout, WAITING.sub("", stderr))
    assert re.match(r"on \S+: a worker: its process has died 3 times while it opened the bundle; ", line)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_what_only_the_driver_can_read_is_told_in_a_line(cluster: Machines, tmp_path: Path) -> None:
    requests = noise_requests(tmp_path / "noise")
    shutil.copytree(GOLDEN, tmp_path / "bundle")
    mine = Path("/proc/self/cwd")  # another folder for each process
    for arguments, message in (
        ((mine / "bundle", requests), "/proc/self/cwd/bundle"),
        ((GOLDEN, mine / "noise/requests.jsonl"), "/proc/self/cwd/noise/requests.jsonl cannot be read"),
    ):
        options = ("-o", tmp_path / "out", "--ray", cluster.address)
        status, stdout, stderr = finish(start("batch", *arguments, *options, *ONE_THREAD, cwd=tmp_path))
        assert check_refusal(status, stdout, stderr).startswith("on ")
        assert message in stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_parquet_in_and_few_machines(cluster: Machines, tmp_path: Path, capsys: Capture) -> None:
    requests = noise_requests(tmp_path / "noise")
    parquet = requests.with_suffix(".parquet")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(read_rows(requests)), parquet, row_group_size=5)
    few = ("--max-new-tokens", 2)
    ended(GOLDEN, parquet, "-o", tmp_path / "out", "--ray", cluster.address, "--workers", 1, "--part-rows", 5, *few)
    accepted(capsys, "batch", GOLDEN, requests, "-o", tmp_path / "one.jsonl", *ONE_THREAD, *few)
    assert without_cached(lines(tmp_path / "out")) == without_cached(read_rows(tmp_path / "one.jsonl"))
    options = ("-o", tmp_path / "no", "--ray", cluster.address, "--threads", 64)
    line = check_refusal(*finish(start("batch", GOLDEN, requests, *options)))
    assert line.startswith("no machine of the cluster has 64 CPU, ")
    assert "; the largest has 1 CPU, " in line


@pytest.mark.slow
def test_a_bundle_of_a_gpus_has_a_worker_for_each_gpu(bundles: Bundles, tmp_path: Path, capsys: Capture) -> None:
    """GPUs that Ray is told of: the engine is ONNX Runtime's on the CPU."""
    bundle, requests = bundles("cuda-fp16").bundle, noise_requests(tmp_path / "noise")
    few = ("--visual-tokens", "20%", "--max-new-tokens", 2)
    accepted(capsys, "batch", bundle, requests, "-o", tmp_path / "one.jsonl", *ONE_THREAD, *few)
    with machines(2, cpus=2, gpus=1) as cluster:
        out = ("-o", tmp_path / "out", "--ray", cluster.address, "--part-rows", 1)
        run = start("batch", bundle, requests, *out, *ONE_THREAD, *few, "--json")
        most = [0, 0]
        while run.poll() is None:
            most = [max(count, len(cluster.workers(number))) for number, count in enumerate(most)]
            time.sleep(0.05)
        assert summary_of(run)["answers"] == 12
    assert most == [1, 1]
    found, one = lines(tmp_path / "out"), read_rows(tmp_path / "one.jsonl")
    check_as_one(found, one, requests, bundle, tolerance=FP16_TOLERANCE, visual_tokens="20%", max_new_tokens=2)
