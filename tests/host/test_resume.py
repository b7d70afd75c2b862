"""An export that was killed goes on after its last whole tensor, and gives the bytes of one that was not.

The exports that are killed run in a fork of this process, which saves them the imports and the tracing; they are killed
by SIGKILL, in the middle of a write, and nothing of them runs afterwards.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from hired_edge.bundle import Bundle
from hired_edge.errors import ExportError
from hired_export import exporter, identity, parity
from hired_export.exporter import ExportOptions, export
from hired_export.external import ExternalData
from hired_export.partial import StoppedError
from tests.host.bundles import Bundles, options, traced_language, traced_vision
from tests.host.committed import files
from tests.tiny.commands import finish, start

PASSED = parity.CheckOutcome((parity.Comparison("nothing", 0.0, 1.0, 1.0),), ())
RECIPES = ("wide-int4-32", "jp7-int4", "jp7-fp16")
TOWERS = {"wide-int4-32": "int8"}
"""Precisions of the tower that are not the target's own; a matrix may be there in integers and in floats then."""
LANGUAGE = "language/model.onnx.data"


@pytest.fixture(autouse=True)
def _traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "language_graph", traced_language)
    monkeypatch.setattr(exporter, "vision_graph", traced_vision)


def exported(bundles: Bundles, recipe: str, out: Path, **changes: Any) -> Path:
    export(bundles.checkpoint(recipe), out, asked(recipe, **changes), check=lambda job: PASSED)
    return out


def asked(recipe: str, **changes: Any) -> ExportOptions:
    return options(recipe, vision_precision=TOWERS.get(recipe), **changes)


def contents(bundle: Path) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in files(bundle).items()}


def forked(work: Callable[[], object]) -> int:
    """How a fork of this process that does `work` ends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other threads of this process, if any, hold nothing that `work` waits for
        pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed(bundles: Bundles, recipe: str, out: Path, share: float, whole: int, **changes: Any) -> None:
    """Exports until `share` of the `whole` bytes of weights are written, the last ones of them by half."""
    append, written = ExternalData._append, 0

    def appended(self: ExternalData, part: memoryview) -> None:
        nonlocal written
        written += part.nbytes
        if written > share * whole:
            append(self, part[: part.nbytes // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        append(self, part)

    def work() -> None:
        ExternalData._append = appended  # of the fork alone
        exported(bundles, recipe, out, **changes)

    assert forked(work) == -signal.SIGKILL
    assert out.with_name(f"{out.name}.partial").is_dir()


@pytest.fixture(scope="module")
def uninterrupted(bundles: Bundles, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, bytes]]:
    """The bytes of a recipe's bundle, made in one go."""
    made: dict[str, dict[str, bytes]] = {}

    def content(recipe: str) -> dict[str, bytes]:
        if recipe not in made:
            made[recipe] = contents(exported(bundles, recipe, tmp_path_factory.mktemp("whole") / "out"))
        return made[recipe]

    return content


def weights(content: dict[str, bytes]) -> int:
    return sum(len(data) for name, data in content.items() if name.endswith(".data"))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tensors that are written, one after the other."""
    names: list[str] = []
    write = ExternalData.write

    def noted(data: ExternalData, value: ir.Value, chunks: Any) -> None:
        names.append(f"{data.path.parent.name}/{value.name}")
        write(data, value, chunks)

    monkeypatch.setattr(ExternalData, "write", noted)
    return names


def journal(out: Path) -> list[str]:
    """What it names, each as folder/name."""
    _, *lines = out.with_name(f"{out.name}.partial").joinpath("journal").read_text().splitlines()
    entries = map(json.loads, lines)
    return [f"{file.split('/')[0]}/{name}" for file, name, *_ in entries]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("share", [0.0, 0.31, 0.64, 0.97])
def test_the_bytes_are_those_of_one_go(
    recipe: str, share: float, bundles: Bundles, uninterrupted: Any, written: list[str], tmp_path: Path
) -> None:
    whole, out = uninterrupted(recipe), tmp_path / "out"
    killed(bundles, recipe, out, share, weights(whole))
    kept = journal(out)
    assert bool(kept) == (share > 0)
    written.clear()
    exported(bundles, recipe, out)
    assert contents(out) == whole
    assert not set(written) & set(kept)  # none was written twice
    assert os.listdir(tmp_path) == ["out"]
    Bundle.open(out)


def test_it_may_be_killed_again_and_again(bundles: Bundles, uninterrupted: Any, tmp_path: Path) -> None:
    recipe, out = "jp7-int8", tmp_path / "out"
    whole = uninterrupted(recipe)
    seen = []
    while not seen or len(seen) < 6:
        killed(bundles, recipe, out, 0.15, weights(whole))
        seen.append(len(journal(out)))
    assert seen == sorted(set(seen)), "each went on from the one before"
    exported(bundles, recipe, out)
    assert contents(out) == whole


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def tear_last_line(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def end_in_zeros(path: Path) -> None:
    with path.open("ab") as file:
        file.write(bytes(100))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a bit of the weights": lambda partial: flip(partial / "bundle" / LANGUAGE, 5000),
    "weights cut off": lambda partial: os.truncate(partial / "bundle" / LANGUAGE, 9000),
    "no weights": lambda partial: (partial / "bundle" / LANGUAGE).unlink(),
    "half a line": lambda partial: tear_last_line(partial / "journal"),
    "zeros for a line": lambda partial: end_in_zeros(partial / "journal"),
    "no journal": lambda partial: (partial / "journal").unlink(),
    "a file more": lambda partial: (partial / "bundle/language/more").write_text("left by a killed export"),
    "a link for a file": lambda partial: (partial / "bundle/vision").symlink_to("../../elsewhere"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_the_power_left_is_not_trusted(damage: str, bundles: Bundles, uninterrupted: Any, tmp_path: Path) -> None:
    recipe, out = "wide-int4-32", tmp_path / "out"
    whole = uninterrupted(recipe)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/mine").write_text("mine")
    killed(bundles, recipe, out, 0.3, weights(whole))
    DAMAGES[damage](tmp_path / "out.partial")
    exported(bundles, recipe, out)
    assert contents(out) == whole
    assert (tmp_path / "elsewhere/mine").read_text() == "mine"


@pytest.mark.parametrize(
    "changes", [{"max_new_tokens": 41}, {"precision": "int8", "block_size": None}, {"lm_head_parts": 2}], ids=str
)
def test_other_options_begin_anew(changes: dict[str, Any], bundles: Bundles, tmp_path: Path) -> None:
    recipe, out = "wide-int4-32", tmp_path / "out"
    killed(bundles, recipe, out, 0.3, 10**6)
    exported(bundles, recipe, out, **changes)
    assert contents(out) == contents(exported(bundles, recipe, tmp_path / "again", **changes))


def test_what_is_another_export(bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = bundles.checkpoint("wide-int4-32")
    checkpoint = tmp_path / source.name
    checkpoint.mkdir()
    for path in source.iterdir():
        (checkpoint / path.name).write_bytes(path.read_bytes())
    chosen = ExportOptions(precision="int4")
    before = identity.identity(checkpoint, chosen)
    (checkpoint / "notes").symlink_to("/proc/self/mem")  # reading it fails
    assert identity.identity(checkpoint, chosen) != before
    (checkpoint / "notes").unlink()
    assert before == identity.identity(source, replace(chosen, progress=False)), "the same files, elsewhere"
    seen = {before, identity.identity(checkpoint, replace(chosen, precision="int8"))}
    (checkpoint / "config.json").write_text((checkpoint / "config.json").read_text() + " ")
    seen.add(identity.identity(checkpoint, chosen))
    flip(checkpoint / "model.safetensors", -1)
    seen.add(identity.identity(checkpoint, chosen))
    monkeypatch.setattr(identity, "SMALL", 10)  # by size and time alone
    seen.add(identity.identity(checkpoint, chosen))
    os.utime(checkpoint / "model.safetensors", ns=(0, 0))
    seen.add(identity.identity(checkpoint, chosen))
    monkeypatch.setattr(identity, "__version__", "0.0.0")
    seen.add(identity.identity(checkpoint, chosen))
    assert len(seen) == 7


STOPS = {
    KeyboardInterrupt: KeyboardInterrupt(),
    StoppedError: StoppedError("the check died", expected="it to live", fix="export again"),
    ExportError: ExportError("it differs", expected="it not to", fix="report this"),
    ZeroDivisionError: ZeroDivisionError("a bug"),
}


@pytest.mark.parametrize("kind", STOPS)
def test_what_is_kept(
    kind: type[BaseException], bundles: Bundles, uninterrupted: Any, written: list[str], tmp_path: Path
) -> None:
    recipe, out = "jp7-fp16", tmp_path / "out"
    whole = uninterrupted(recipe)

    def stop(job: parity.ParityJob) -> parity.CheckOutcome:
        raise STOPS[kind]

    with pytest.raises(kind) as caught:
        export(bundles.checkpoint(recipe), out, asked(recipe), check=stop)
    if kind not in (KeyboardInterrupt, StoppedError):
        assert os.listdir(tmp_path) == []
        return
    assert sorted(os.listdir(tmp_path / "out.partial")) == ["bundle", "journal", "lock"]
    if kind is KeyboardInterrupt:
        assert f"{out}.partial keeps 1 MiB: the same command goes on from there" in str(caught.value)
    written.clear()
    exported(bundles, recipe, out)
    assert written == ["language/rotary_cos", "language/rotary_sin"], "nothing that is read from the checkpoint"
    assert contents(out) == whole


@pytest.mark.slow
def test_kills_at_any_moment(bundles: Bundles, tmp_path: Path) -> None:
    """The command itself, its parity check included, killed at random moments until it comes through."""
    draw = random.Random(0)
    checkpoint, out, whole = bundles.checkpoint("next-llama"), tmp_path / "out", tmp_path / "whole"
    words = ("--precision", "int8", "--visual-tokens", "20%", "--max-text-tokens", 64, "--max-new-tokens", 16)
    began = time.monotonic()
    assert finish(start("export", checkpoint, whole, *words))[0] == 0
    usual = time.monotonic() - began
    for _ in range(8):
        process = start("export", checkpoint, out, *words)
        time.sleep(draw.uniform(0.3, 0.95) * usual)
        process.kill()
        finish(process)
        if out.exists():
            break
    if not out.exists():
        assert finish(start("export", checkpoint, out, *words))[0] == 0
    assert contents(out) == contents(whole)
    assert sorted(os.listdir(tmp_path)) == ["out", "whole"]
