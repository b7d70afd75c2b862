"""`python -m demo.quantisation`: compares ways of quantising on the demonstration model; docs/quantisation.md."""

from __future__ import annotations

import argparse
import math
import platform
import time
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.vision.agreement import compare
from demo.quantisation import divergence, page, wide
from demo.quantisation.variants import BLOCKS, REFERENCE, TOWER, VARIANTS, Variant
from demo.scenes.__main__ import write
from demo.scenes.questions import TASKS
from demo.training.bundle import CHECKPOINT, DEMO, make
from hired_edge.bundle import Bundle
from hired_edge.questions import read_dataset
from hired_edge.tensorfile import TensorFile
from hired_export.activation_aware.calibrate import TOKENS
from hired_export.progress import step
from hired_runtime.evaluation import Evaluation, Setting, evaluate
from hired_runtime.profiling.machine import machine
from hired_runtime.whole import whole

OUTPUT = DEMO / "output/quantisation"
SETTINGS = {"100%": Setting("full"), "20%": Setting("hired", "20%")}
HELD_OUT, CALIBRATION = 1000, 1
CALIBRATION_PICTURES = 64


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.quantisation", description=__doc__)
    parser.add_argument("--pictures", type=int, default=100, metavar="N", help="of the accuracies (default: 100)")
    parser.add_argument("--forced", type=int, default=50, metavar="N", help="pictures of the divergences (default: 50)")
    parser.add_argument("--only", choices=["model", "matrix"], help="measure this alone (default: both)")
    parser.add_argument("--out", type=Path, default=DEMO.parent / "docs/quantisation.md", metavar="FILE")
    args = parser.parse_args()
    if args.only != "matrix":
        older = args.out.read_text(encoding="utf-8") if args.out.exists() else ""
        _write(args.out, _model(args.pictures, args.forced) + older.partition(page.BEGIN)[2])
    if args.only != "model":
        with step("one wide matrix", True, len(wide.WEIGHTS) * len(BLOCKS), unit=" cases") as advance:
            rows = list(wide.measure(BLOCKS, advance))
        _write(args.out, page.with_matrix(args.out.read_text(encoding="utf-8"), _here(), rows))


def _write(path: Path, text: str) -> None:
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _here() -> str:
    found = machine()
    return f"{found.processor}, {found.cores} cores, Python {platform.python_version()}, numpy {np.__version__}"


def _model(pictures: int, forced_pictures: int) -> str:
    """The page about the demonstration model."""
    started = time.monotonic()
    questions, calibration = OUTPUT / "held-out", OUTPUT / "calibration"
    write(questions, seed=HELD_OUT, count=pictures)
    write(calibration, seed=CALIBRATION, count=CALIBRATION_PICTURES)
    with step("bundles", True, len(VARIANTS), unit=" bundles") as advance:
        for variant in VARIANTS:
            make(OUTPUT / variant.folder, **variant.export_options(calibration))
            advance(1)
    asked = read_dataset(questions).questions
    first = set(list(dict.fromkeys(each.picture for each in asked))[:forced_pictures])
    forced = [each for each in asked if each.picture in first]
    with step("divergences", True, len(VARIANTS) * len(forced), unit=" questions") as advance:
        reference = divergence.answers(OUTPUT / REFERENCE.folder, forced, advance)
        apart = {
            variant: divergence.divergences(reference, divergence.forced(OUTPUT / variant.folder, reference, advance))
            for variant in VARIANTS
            if variant is not REFERENCE
        }
    with step("the tower", True, 1, unit=" tower") as advance:
        seen = list(dict.fromkeys(each.picture for each in asked))
        agreed = compare(Bundle.open(OUTPUT / TOWER.folder), Bundle.open(OUTPUT / REFERENCE.folder), seen)
        advance(1)
    evaluations: dict[Variant, Evaluation] = {}
    with step("answers", True, len(VARIANTS), unit=" bundles") as advance:
        for variant in VARIANTS:
            evaluations[variant] = evaluate(OUTPUT / variant.folder, questions, list(SETTINGS.values()))
            advance(1)
    measured = [
        page.Measured(
            variant.name,
            _megabytes(OUTPUT / variant.folder),
            {(budget, task): found.accuracy(setting, task) for budget, setting in SETTINGS.items() for task in TASKS},
            {budget: _same(found, evaluations[REFERENCE], setting) for budget, setting in SETTINGS.items()},
            apart.get(variant, {}),
        )
        for variant, found in evaluations.items()
    ]
    run = page.Run(
        machine=f"{_here()}, onnxruntime {onnxruntime.__version__}",
        questions=len(asked),
        pictures=pictures,
        forced=len(forced),
        calibration=f"{TOKENS} tokens of {CALIBRATION_PICTURES} pictures",
        parameters=_parameters(),
        seconds=time.monotonic() - started,
    )
    return page.render(run, measured, agreed)


def _megabytes(bundle: Path) -> float:
    """The language model's weights and the embedding table."""
    manifest = Bundle.open(bundle, verify=False).manifest
    names = {*(name for graph in manifest.language_graphs for name in graph.data), manifest.embedding}
    return sum(manifest.files[name].bytes for name in names) / 1e6


def _same(found: Evaluation, reference: Evaluation, setting: Setting) -> float:
    pairs = list(zip(found.answers(setting), reference.answers(setting), strict=True))
    return sum(one == other for one, other in pairs) / len(pairs)


def _parameters() -> str:
    file = TensorFile(CHECKPOINT / "model.safetensors")
    count = sum(math.prod(file.info(name).shape) for name in file.names)
    return f"{count / 1e6:.1f} million"


if __name__ == "__main__":
    main()
