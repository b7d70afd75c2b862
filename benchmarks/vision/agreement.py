"""How near one tower comes to another: cosine of features, and the tokens that HiRED keeps.

    python -m benchmarks.vision.agreement BUNDLE OTHER PICTURES

Two bundles of one checkpoint for the CPU (`--vision-precision int8` beside the default), over a folder of pictures such
as `python -m demo.scenes` writes. The last line of stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from benchmarks.cpu.page import table
from benchmarks.vision.results import BUDGETS, Agreement
from hired_edge import strict
from hired_edge.bundle import Bundle
from hired_edge.cli import EXIT_ERROR, Parser
from hired_edge.errors import HiredEdgeError, InputError
from hired_edge.selection import select
from hired_edge.tiling import Tiling, tile
from hired_runtime.ort import session_options
from hired_runtime.pictures import load_picture
from hired_runtime.preprocess import pixel_values

Outputs = dict[str, NDArray[np.float32]]
"""features (T, N, D); allocation and selection attention (T, N), for a side that has them."""
NAMES = ("features", "allocation", "selection")
SUFFIXES = (".png", ".jpg", ".jpeg")


def agreement(got: Outputs, expected: Outputs, tiling: Tiling) -> Agreement:
    """Of one picture."""
    a, b = (each["features"].astype(np.float64) for each in (got, expected))
    cosine = (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
    kept = {}
    if "selection" in got:
        for budget in BUDGETS:
            ours, theirs = (_kept(each, tiling, budget) for each in (got, expected))
            kept[budget] = len(ours & theirs) / len(theirs)
    return Agreement(float(cosine.mean()), float(cosine.min()), kept)


def _kept(found: Outputs, tiling: Tiling, budget: str) -> set[int]:
    """Rows of the features that are kept."""
    (selection,) = select([tiling], [found["allocation"]], [found["selection"]], budget)
    return set(selection.gather[selection.gather >= 0].tolist())


def over(pictures: Sequence[Agreement]) -> Agreement:
    """Of all pictures: means, and the least cosine of all."""
    return Agreement(
        mean(each.cosine for each in pictures),
        min(each.least_cosine for each in pictures),
        {budget: mean(each.kept[budget] for each in pictures) for budget in BUDGETS},
    )


def compare(bundle: Bundle, other: Bundle, pictures: Sequence[Path]) -> Agreement:
    """Runs both towers on every picture; `other` is what is agreed with."""
    vision = bundle.manifest.vision
    sessions = [
        ort.InferenceSession(
            each.path(each.manifest.vision_graph.file), session_options(None), providers=["CPUExecutionProvider"]
        )
        for each in (bundle, other)
    ]
    found = []
    for path in pictures:
        picture = load_picture(str(path))
        tiling = tile(picture.height, picture.width, vision.tiling)
        pixels = pixel_values(picture, tiling, vision.preprocess)
        got, expected = (_run_on(each, pixels) for each in sessions)
        found.append(agreement(got, expected, tiling))
    return over(found)


def _run_on(session: ort.InferenceSession, pixels: NDArray[np.float32]) -> Outputs:
    found = map(np.asarray, session.run(None, {"pixel_values": pixels}))
    return dict(zip(NAMES, found, strict=True))


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table and the JSON; 0, or 2 for what a user can mend."""
    parser = Parser(prog="python -m benchmarks.vision.agreement", description="how near one tower comes to another")
    for name in ("bundle", "other", "pictures"):
        parser.add_argument(name, metavar=name.upper())
    try:
        return _run(parser.parse_args(argv))
    except HiredEdgeError as error:
        print("benchmarks.vision.agreement: error:", " ".join(str(error).splitlines()), file=sys.stderr)
        return EXIT_ERROR


def _run(args: argparse.Namespace) -> int:
    folder = Path(args.pictures)
    pictures = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES)
    if not pictures:
        raise InputError(f"{folder} holds no picture", expected=" or ".join(SUFFIXES), fix="pass another folder")
    bundle, other = (Bundle.open(Path(name)) for name in (args.bundle, args.other))
    if bundle.manifest.vision != other.manifest.vision or {bundle.manifest.target, other.manifest.target} != {"cpu"}:
        raise InputError(
            f"{args.bundle} and {args.other} have different towers",
            expected="two bundles of one checkpoint for the CPU",
            fix="export both with --target cpu",
        )
    found = compare(bundle, other, pictures)
    heading = ["pictures", "cosine of features, mean (least)", *[f"same tokens kept at {b}" for b in BUDGETS]]
    kept = [f"{100 * found.kept[budget]:.1f} %" for budget in BUDGETS]
    print("\n".join(table(heading, [[str(len(pictures)), f"{found.cosine:.5f} ({found.least_cosine:.5f})", *kept]])))
    print(json.dumps({"pictures": len(pictures), **strict.to_json(found)}, allow_nan=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
