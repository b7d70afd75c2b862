"""`python -m benchmarks.policies`: how long every selection policy takes for the largest picture of a full-size model.

Five tiles of 576 patches, features of width 4096 and keys of 1024 in memory, seeded noise around a smooth field so that
neighbouring patches are alike; a budget of 20 %, newlines counted. Times are medians of whole selections, from
attention maps to the gather index, and of merging the kept rows where a policy does. Fetching features from an engine
is not counted: only the policies that compare features do it. Those compare a sketch of so wide features
(`hired_edge.policies.similarity`): how many of the tokens they keep exact cosines keep too is reported beside.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from hired_edge.merging import merge_rows
from hired_edge.policies import POLICIES, similarity
from hired_edge.selection import Selection, select
from hired_edge.tiling import TilingRules, tile
from hired_runtime.profiling.machine import machine
from hired_runtime.whole import whole

RULES = TilingRules("anyres", 336, 14, ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)))
PICTURE = (672, 672)
WIDTH, KEYS = 4096, 1024
BUDGET, OWN_NUMBER = "20%", "99%"
"""Of a policy that keeps to a budget, and of one that decides its own number."""


def measure(rounds: int) -> dict[str, Any]:
    """{machine, rounds, policies: [{policy, ms, merge_ms, kept, as_exact}]}; `as_exact`: a share, or None."""
    tiling, random = tile(*PICTURE, RULES), np.random.Generator(np.random.PCG64(0))
    side, shape = RULES.patches_per_side, (tiling.tiles, RULES.patches_per_tile)
    steps = random.standard_normal((tiling.tiles, side, side, 64), np.float32)
    field = steps.cumsum(axis=1).cumsum(axis=2).reshape(*shape, 64)
    features = field @ random.standard_normal((64, WIDTH), np.float32)
    features += 20 * random.standard_normal(features.shape, np.float32)
    keys = field @ random.standard_normal((64, KEYS), np.float32)
    maps = [np.exp(1.5 * random.standard_normal(shape, np.float32)) for _ in range(2)]
    flat, rows = features.reshape(-1, WIDTH), []
    for name, policy in POLICIES.items():
        budget = OWN_NUMBER if "keys" in policy.needs else BUDGET
        choose = partial(select, [tiling], [maps[0]], [maps[1]], budget, name, features=[lambda: features], keys=[keys])
        (selection,), ms = _median(choose, rounds)
        merge_ms = _median(partial(_merge, selection, flat), rounds)[1] if selection.merge is not None else 0.0
        as_exact = _as_exact(choose, selection) if "features" in policy.needs and policy.merge is None else None
        row = {"policy": name, "ms": ms, "merge_ms": merge_ms, "kept": selection.visual_tokens, "as_exact": as_exact}
        rows.append(row)
    found = machine()
    return {"machine": f"{found.processor}, {found.cores} cores", "rounds": rounds, "policies": rows}


def _as_exact(choose: Callable[[], list[Selection]], selection: Selection) -> float:
    """Which share of the kept tokens is kept with exact cosines too."""
    with patch.object(similarity, "EXACT", WIDTH):
        (exact,) = choose()
    kept = selection.gather[selection.gather >= 0]
    return float(np.isin(kept, exact.gather).mean())


def _merge(selection: Selection, flat: NDArray[np.float32]) -> None:
    assert selection.merge is not None
    visual = flat[selection.gather]
    merge_rows(visual, selection.gather, selection.merge, lambda rows: flat[rows])


def _median(run: Callable[[], Any], rounds: int) -> tuple[Any, float]:
    """What `run` returns, and the median of its milliseconds after one round that is not counted."""
    result, times = run(), []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return result, statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.policies", description=__doc__)
    parser.add_argument("--rounds", type=int, default=11, metavar="N", help="(default: 11)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="as JSON too")
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error(f"--rounds {args.rounds}; expected 1 or more")
    found = measure(args.rounds)
    print(found["machine"])
    for row in found["policies"]:
        merging = f" + merging {row['merge_ms']:.1f}" if row["merge_ms"] else ""
        exact = "" if row["as_exact"] is None else f", {100 * row['as_exact']:.0f} % of them as with exact cosines"
        print(f"{row['policy']:24} {row['ms']:7.2f} ms{merging}   {row['kept']} visual tokens{exact}")
    if args.output is not None:
        try:
            with whole(args.output) as partial_file:
                partial_file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            parser.error(f"{args.output} cannot be written ({error.strerror}); expected a writable path")


if __name__ == "__main__":
    main()
