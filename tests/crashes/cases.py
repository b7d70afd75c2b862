"""The commands that are killed: what each starts from, what its result is, and what two results have in common."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hired_edge.bundle import Bundle
from tests.crashes.processes import ROOT, Launcher
from tests.golden import make as golden
from tests.tiny import keys
from tests.tiny.questions import PROMPTS, write_questions

NOTHING, OLD = "nothing", "an old result"
Contents = dict[str, bytes]
_HASH = re.compile(rb'"(sha256|bytes)": ?("[0-9a-f]{64}"|[0-9]+)')
_CACHED = re.compile(rb'"cached_tokens": [0-9]+')
_RUN = re.compile(rb'("seconds": |\| seconds \| |"answers_made_now": |\| answers made now \| )[0-9.]+')
LIMITS = ("--visual-tokens", "20%,40%", "--max-text-tokens", 64, "--max-new-tokens", 16)
DONE = ("exists", "is there already")
"""How a command says that its result is there, where it replaces none."""


@dataclass(frozen=True)
class Case:
    """A command.

    Args:
        name: of the table's row.
        inputs: fills a folder that no run changes.
        start: fills the folder that a run works in.
        argv: the command, given both folders.
        results: what it makes, as paths in the second folder.
        old: the command that makes the old result; None: this one never replaces any.
        warm: whether it is run from the warm process.
        whole: whether all files of the result appear in one step; where not, each does.
    """

    name: str
    inputs: Callable[[Launcher, Path], object]
    start: Callable[[Path, Path], object]
    argv: Callable[[Path, Path], Sequence[object]]
    results: tuple[str, ...]
    old: Callable[[Path, Path], Sequence[object]] | None = None
    warm: bool = False
    whole: bool = True

    def result(self, folder: Path) -> Contents:
        """The files that lie where the result is to be, by their paths."""
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for name in self.results
            for path in ([folder / name] if (folder / name).is_file() else sorted((folder / name).rglob("*")))
            if path.is_file() and not _hidden(path, folder)
        }


def constant(result: Contents) -> Contents:
    """Without what differs from run to run: seconds, what a run found done, and engines, whose hashes are checked."""
    return {name: _CHANGING[Path(name).suffix](content) for name, content in result.items()}


def check_sound(result: Contents, folder: Path) -> None:
    """Bundles and engines of a result hold what their manifest and their record say."""
    for manifest in (path for path in result if path.endswith("manifest.json")):
        bundle = Bundle.open((folder / manifest).parent)
        for record in sorted(bundle.root.glob("engines/[!.]*/engine.json")):
            for engine in json.loads(record.read_text())["engines"]:
                content = (record.parent / engine["file"]).read_bytes()
                assert hashlib.sha256(content).hexdigest() == engine["sha256"], f"{record} says another {engine}"


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _same(content: bytes) -> bytes:
    return content


_CHANGING: dict[str, Callable[[bytes], bytes]] = defaultdict(
    lambda: _same,
    {
        ".engine": lambda content: b"",
        ".json": lambda content: _HASH.sub(b"", content) if b'"engines"' in content else _RUN.sub(rb"\1", content),
        ".md": lambda content: _RUN.sub(rb"\1", content),
        ".jsonl": lambda content: _CACHED.sub(b"", content),
    },
)


def listing(folder: Path) -> set[str]:
    """Every file and folder in it. Of the caches, what our own holds that is not meant to be kept."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    return {name for name in names if not name.startswith("cache") or name.startswith("cache/hired-edge/.")}


def _nothing(*_: object) -> None:
    pass


def _checkpoint(launcher: Launcher, inputs: Path) -> None:
    if not (inputs / "checkpoint").exists():
        golden.write(inputs / "checkpoint")


def _jp7(launcher: Launcher, inputs: Path) -> None:
    _checkpoint(launcher, inputs)
    words = ("export", inputs / "checkpoint", inputs / "bundle", "--target", "jp7", *LIMITS)
    ended = launcher.run(words, inputs, warm=True)
    assert ended.status == 0, ended.errors


def _copy_jp7(inputs: Path, folder: Path) -> None:
    shutil.copytree(inputs / "bundle", folder / "bundle")


def _committed(launcher: Launcher, inputs: Path) -> None:
    shutil.copytree(ROOT / "tests/golden/bundle", inputs / "bundle")


def _questions(launcher: Launcher, inputs: Path) -> None:
    _committed(launcher, inputs)
    write_questions(inputs / "questions")


def _requests(launcher: Launcher, inputs: Path) -> None:
    _questions(launcher, inputs)
    rows = [
        {"id": f"{picture}-{number}", "image": f"questions/{picture}.png", "prompt": prompt}
        for picture in range(4)
        for number, prompt in enumerate(PROMPTS)
    ]
    (inputs / "requests.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _packed(launcher: Launcher, inputs: Path) -> None:
    _committed(launcher, inputs)
    ended = launcher.run(("pack", inputs / "bundle", inputs / "bundle.tar"), inputs)
    assert ended.status == 0, ended.errors


def _keys(launcher: Launcher, inputs: Path) -> None:
    _committed(launcher, inputs)
    for name in ("old", "new"):
        keys.pem(inputs, name)


def _eval(budgets: str) -> Callable[[Path, Path], Sequence[object]]:
    words = ("--budgets", budgets, "--max-new-tokens", 12, "--threads", 1, "--report")
    return lambda inputs, folder: ("eval", inputs / "bundle", inputs / "questions", *words, folder / "report")


def _build(*words: object) -> Callable[[Path, Path], Sequence[object]]:
    return lambda inputs, folder: ("build", folder / "bundle", "--sm", 86, *words)


EXPORT = Case(
    "export",
    _checkpoint,
    _nothing,
    lambda inputs, folder: ("export", inputs / "checkpoint", folder / "out", *LIMITS),
    ("out",),
    warm=True,
)
CASES = {
    case.name: case
    for case in (
        EXPORT,
        Case(
            "build",
            _jp7,
            _copy_jp7,
            _build("--visual-tokens", "40%", "--force"),
            ("bundle",),
            old=_build("--visual-tokens", "20%"),
        ),
        Case(
            "eval",
            _questions,
            _nothing,
            _eval("100%,40%,20%"),
            ("report/report.json", "report/report.md", "report/accuracy.png"),
            old=_eval("100%,20%"),
            whole=False,
        ),
        Case(
            "batch",
            _requests,
            _nothing,
            lambda inputs, folder: (
                *("batch", inputs / "bundle", inputs / "requests.jsonl", "-o", folder / "answers.jsonl"),
                *("--max-new-tokens", 12, "--threads", 1),
            ),
            ("answers.jsonl",),
        ),
        Case(
            "sign",
            _keys,
            lambda inputs, folder: shutil.copytree(inputs / "bundle", folder / "bundle"),
            lambda inputs, folder: ("sign", folder / "bundle", "--key", inputs / "new.pem"),
            ("bundle/manifest.json.sig",),
            old=lambda inputs, folder: ("sign", folder / "bundle", "--key", inputs / "old.pem"),
        ),
        Case(
            "pack",
            _committed,
            _nothing,
            lambda inputs, folder: ("pack", inputs / "bundle", folder / "bundle.tar"),
            ("bundle.tar",),
        ),
        Case(
            "unpack",
            _packed,
            _nothing,
            lambda inputs, folder: ("unpack", inputs / "bundle.tar", folder / "received"),
            ("received",),
        ),
    )
}
