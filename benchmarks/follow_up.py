"""`python -m benchmarks.follow_up BUNDLE`: the time to first token of a second question about the same picture.

A conversation of three questions about a picture of noise, as many times as asked, each time from an empty cache: the
first question sees the picture and prefills all of it, the others find it in the cache and prefill what was said since.
The target: a follow-up takes at most a tenth of the first. How a bundle of a 7B model's shape is made is in
docs/full-size.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
from typing import Any

import numpy as np
from PIL import Image

import hired_runtime
from hired_edge.errors import HiredEdgeError
from hired_runtime.profiling.machine import machine

QUESTIONS = ("How many cards are there?", "Is there a blue card?", "Which is higher?")
SHOWN = ("preprocess", "vision", "select", "prefill", "ttft")


def measure(bundle: str, budget: str, rounds: int, threads: int | None, size: int) -> dict[str, Any]:
    """{machine, budget, rounds, questions: [{prompt_tokens, cached_tokens, ratio, ms: {stage: median}}]}; `ratio`: of
    the medians of the time to first token, to the first question's."""
    model = hired_runtime.open(bundle, visual_tokens=budget, images=1, threads=threads)
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    asked: list[list[dict[str, float]]] = [[] for _ in QUESTIONS]
    counts: list[dict[str, int]] = []
    for _ in range(rounds):
        model.pipeline.encoder_cache.clear()
        model.pipeline.batcher.forget()
        session, counts = model.session([Image.fromarray(noise)], max_new_tokens=2), []
        for times, prompt in zip(asked, QUESTIONS, strict=True):
            answer = session.ask(prompt)
            times.append(answer.timings_ms)
            visual = sum(each.visual_tokens for each in answer.selections)
            counts.append({"prompt_tokens": answer.prompt_tokens + visual, "cached_tokens": answer.cached_tokens})
    model.close()
    medians = [{name: statistics.median(each.get(name, 0.0) for each in times) for name in SHOWN} for times in asked]
    questions = [
        {**count, "ratio": ms["ttft"] / medians[0]["ttft"], "ms": ms} for count, ms in zip(counts, medians, strict=True)
    ]
    found = machine()
    return {
        "machine": f"{found.processor}, {found.cores} cores",
        "budget": budget,
        "rounds": rounds,
        "questions": questions,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.follow_up", description=__doc__)
    parser.add_argument("bundle", metavar="BUNDLE")
    parser.add_argument("--visual-tokens", default="20%", metavar="B|P%", help="(default: 20%%)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="(default: 5)")
    parser.add_argument("--threads", type=int, metavar="N", help="of the engine (default: its own choice)")
    parser.add_argument("--size", type=int, default=672, metavar="PX", help="side of the picture (default: 672)")
    args = parser.parse_args()
    if args.rounds < 1 or args.size < 1:
        parser.error("--rounds and --size are 1 or more")
    try:
        found = measure(args.bundle, args.visual_tokens, args.rounds, args.threads, args.size)
    except HiredEdgeError as error:
        parser.error(str(error))
    print(f"{found['machine']}; {args.bundle} at {found['budget']}, medians of {found['rounds']} conversations")
    print(
        f"{'question':>8} {'prompt':>7} {'cached':>7} " + " ".join(f"{name + ', ms':>14}" for name in SHOWN) + "  ratio"
    )
    for number, row in enumerate(found["questions"], 1):
        times = " ".join(f"{row['ms'][name]:14.2f}" for name in SHOWN)
        print(f"{number:8} {row['prompt_tokens']:7} {row['cached_tokens']:7} {times}  {row['ratio']:.3f}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
