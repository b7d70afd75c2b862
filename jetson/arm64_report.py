"""What arm64-check.sh asks on both sides, and the page that it writes of what came out: docs/arm64.md.

    python jetson/arm64_report.py questions --picture FILE            # draws the picture, prints the questions
    python jetson/arm64_report.py write --work DIR --wheels DIR --out FILE

`write` ends with status 1 if anything on the page failed. Knows nothing of qemu: what it reports is in files below DIR.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from demo.run import draw_scene
from hired_edge.bundle import Bundle
from hired_runtime.whole import whole
from jetson.wheels import read_settings, unpacked_mb
from tests.host.reference import opened, taken

ROOT = Path(__file__).resolve().parent.parent
LIMIT_MB = 300
"""What is added to a base image, at the most."""

BUDGETS = ("100%", "40%", "20%")
GOLDEN = ("tests/golden/bundle", "tests/golden/bundle-int4")
DEMO = "demo/bundle"
NEAR_TIE = 0.06
"""Of the largest logit. MatMulNBits rounds the activations of int4 products to int8, on each architecture with kernels
of its own: that moves the logits of such tiny models by 4-6 % (docs/log.md), and two that are closer may change places.
Bundles that are not quantised have to give the same tokens.
"""
SCENE = 12
"""Of make demo's series."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m jetson.arm64_report", description="used by jetson/arm64-check.sh")
    commands = parser.add_subparsers(dest="command", required=True)
    ask = commands.add_parser("questions")
    ask.add_argument("--picture", type=Path, required=True)
    page = commands.add_parser("write")
    for name in ("work", "wheels", "out"):
        page.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    if args.command == "questions":
        print("\n".join(questions(args.picture)))
        return
    report = Report(args.work, args.wheels)
    with whole(args.out) as path:
        path.write_text(report.text())
    print(f"{'passed' if report.passed else 'FAILED'}: {args.out}")
    sys.exit(not report.passed)


def questions(picture: Path) -> list[str]:
    """Lines of name, bundle, picture, budget, prompt. Draws the scene of the demo's questions to `picture`."""
    (ROOT / "demo/output").mkdir(exist_ok=True)
    drawn, asked = draw_scene(SCENE)
    shutil.copy(drawn, picture)
    rows = []
    for bundle in GOLDEN:
        for budget in BUDGETS:
            rows.append((bundle, "demo/pictures/coffee.jpg", budget, "What is in the picture?"))
    for question in asked:
        for budget in BUDGETS:
            rows.append((DEMO, picture.name, budget, question.prompt))
    return ["\t".join((f"{number:02}", *row)) for number, row in enumerate(rows, 1)]


class Report:
    """The page, from what arm64-check.sh has left in `work` and the folders of wheels below `wheels`."""

    def __init__(self, work: Path, wheels: Path) -> None:
        lines = [line.split("\t", 1) for line in (work / "facts").read_text().splitlines()]
        self.facts: dict[str, str] = dict(lines)
        self.packages = (work / "packages").read_text().split("\n")
        self.modules = (work / "modules").read_text().splitlines()
        self.asked = [line.split("\t") for line in (work / "questions.tsv").read_text().splitlines()]
        self.answers = {side: _answers(work / "answers" / side) for side in ("here", "inside")}
        self.gaps = {
            name: _gap(*asked, self.answers["here"][name], self.answers["inside"][name])
            for name, *asked in self.asked
            if self.answers["here"][name] != self.answers["inside"][name]
        }
        self.tests = _tests(work / "junit.xml")
        bytecode = int(self.facts["bytecode MB"])  # of what is used, whatever else the wheels hold
        self.sizes = {name: unpacked_mb((wheels / name).glob("*.whl")) + bytecode for name in ("jp6", "jp7")}
        self.pythons = {name: read_settings(ROOT / f"jetson/{name}.conf")["PYTHON_VERSION"] for name in self.sizes}

    @property
    def checks(self) -> list[tuple[str, str, bool]]:
        """What is checked, what came out, whether that is right."""
        failed = self.tests["failures"] + self.tests["errors"]
        tests = f"{self.tests['tests'] - failed - self.tests['skipped']} passed, {failed} failed"
        equal = len(self.asked) - len(self.gaps)
        near = sum(abs(gap) <= NEAR_TIE for gap in self.gaps.values())
        tokens = sum(len(one) for one in self.answers["inside"].values())
        installed = int(self.facts["installed MB"])
        wheels = [
            (
                f"{name}: a wheel of each package for CPython {self.pythons[name]} on aarch64",
                f"{size:.0f} MB with the bytecode (limit {LIMIT_MB})",
                size < LIMIT_MB,
            )
            for name, size in self.sizes.items()
        ]
        return [
            ("install.sh, without a network", f"{installed} MB (limit {LIMIT_MB})", installed < LIMIT_MB),
            ("apt's compiled modules are seen", self.modules[0], "/usr/lib/python3/dist-packages" in self.modules[0]),
            ("a module that is too old is not", self.modules[1], "/opt/hired-edge/" in self.modules[1]),
            ("tests/device", tests, self.tests["tests"] > 0 and self.facts["pytest's exit status"] == "0"),
            (
                "the same token ids as here",
                f"{equal} of {len(self.asked)} answers, {tokens} tokens; {near} of int4 part at a near-tie",
                equal + near == len(self.asked) and tokens > 0,
            ),
            *wheels,
        ]

    @property
    def passed(self) -> bool:
        return all(right for _, _, right in self.checks)

    def text(self) -> str:
        facts, now, verdict = self.facts, datetime.now(timezone.utc), "passed" if self.passed else "FAILED"
        inside = f"Debian {facts['Debian']}, {facts['machine inside']}, {facts['Python inside']}; qemu {facts['qemu']}"
        here = f"Python {platform.python_version()}, onnxruntime {version('onnxruntime')}, numpy {version('numpy')}"
        seconds = [(name.partition(": ")[2], value) for name, value in facts.items() if name.startswith("seconds: ")]
        wheel = next(line for line in self.packages if line.startswith("hired-edge"))
        lines = [
            "# hired-edge on arm64",
            "",
            "Written by `make arm64-check` (jetson/arm64-check.sh), not by hand. An arm64 Debian userland under qemu,",
            f"on {facts['cores here']} {facts['machine here']} cores: it shows that the installation and the runtime",
            "work on that architecture. It shows nothing of speed, nor of a GPU or TensorRT.",
            "",
            f"- {now:%Y-%m-%d %H:%M} UTC, at {_commit()}: **{verdict}**",
            f"- inside: {inside}",
            f"- here: {here}",
            "",
            "| check | result | |",
            "| --- | --- | --- |",
            *(f"| {name} | {result} | {'passed' if right else 'FAILED'} |" for name, result, right in self.checks),
            "",
            *self._tests_that_failed(),
            "Left out of tests/device, since qemu spoils it or takes an hour for it, by a pytest expression:",
            f"`{facts['not run']}`.",
            "",
            "## The answers",
            "",
            "| bundle | picture | budget | prompt | tokens | inside and here |",
            "| --- | --- | --- | --- | --- | --- |",
            *(self._answer(row) for row in self.asked),
            "",
            "## Seconds",
            "",
            "| step | seconds |",
            "| --- | --- |",
            *(f"| {name} | {value} |" for name, value in seconds),
            *(f"| {name} | {facts[name]} |" for name in ("userland",) if name in facts),
            "",
            "## What install.sh installed",
            "",
            f"{wheel.split(' @ ')[0]}, built from this tree, and:",
            "",
            ", ".join(f"`{line}`" for line in self.packages if line and line != wheel),
            "",
        ]
        return "\n".join(lines)

    def _answer(self, row: list[str]) -> str:
        name, *asked = row
        here, inside = self.answers["here"][name], self.answers["inside"][name]
        same = "equal"
        if name in self.gaps:
            place = _first_difference(here, inside)
            same = f"part at token {place}: a gap of {100 * self.gaps[name]:.1f} % of the largest logit"
        return f"| {' | '.join(asked)} | {len(inside)} | {same} |"

    def _tests_that_failed(self) -> list[str]:
        names = self.tests["failed"]
        return ["Failed: " + ", ".join(f"`{name}`" for name in names) + ".", ""] if names else []


def _answers(folder: Path) -> dict[str, list[int]]:
    """Token ids by the question's name, from the last line of what `hired-edge run --json` printed."""
    return {path.stem: json.loads(path.read_text().splitlines()[-1])["tokens"] for path in folder.glob("*.json")}


def _tests(path: Path) -> dict:
    """What pytest's JUnit file counts; all 0 if there is none."""
    counts: dict = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0, "failed": []}
    if path.exists():
        root = ElementTree.parse(path).getroot()
        for suite in root.iter("testsuite"):
            for name in ("tests", "failures", "errors", "skipped"):
                counts[name] += int(suite.get(name, 0))
        cases = root.iter("testcase")
        bad = [case for case in cases if any(case.find(kind) is not None for kind in ("failure", "error"))]
        counts["failed"] = [f"{case.get('classname')}::{case.get('name')}" for case in bad]
    return counts


def _gap(bundle: str, picture: str, budget: str, prompt: str, here: list[int], inside: list[int]) -> float:
    """How far apart the two first different tokens' logits are here, of the largest; infinite where none is allowed."""
    place = _first_difference(here, inside)
    if Bundle.open(ROOT / bundle).manifest.quantisation.bits != 4 or place >= min(len(here), len(inside)):
        return math.inf
    model, steps = opened(ROOT / bundle, visual_tokens=budget)
    model.ask(prompt, [ROOT / picture], max_new_tokens=place + 1)
    logits = taken(steps)
    return float((logits[place][here[place]] - logits[place][inside[place]]) / abs(logits).max())


def _first_difference(one: list[int], other: list[int]) -> int:
    pairs = zip(one, other, strict=False)
    return next((number for number, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    changed = git("status", "--porcelain", "--", "hired_edge", "runtime", "tests", "demo", "jetson", "pyproject.toml")
    return f"commit {git('rev-parse', '--short', 'HEAD')}" + (" with changes that are not committed" if changed else "")


if __name__ == "__main__":
    main()
