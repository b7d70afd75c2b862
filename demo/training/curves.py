"""`python -m demo.training.curves`: the logs of the stages as a picture, demo/logs/curves.png."""

from __future__ import annotations

import json

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from demo.training.stage import LOGS

PANELS = (
    ("tower", "Tower: digits on patches, held-out scenes", ("crop_recall", "tile_recall", "tile_precision")),
    ("tower", "Tower: other labels on whole tiles, held-out scenes", ("tile_colour", "tile_marker", "tile_codes")),
    ("language", "Text model: exact answers, held-out scenes", ("read", "find", "count", "presence", "compare")),
)


def main() -> None:
    figure, axes = plt.subplots(1, len(PANELS), figsize=(15, 4.2), sharey=True)
    for axis, (stage, title, names) in zip(axes, PANELS, strict=True):
        logged = [json.loads(line) for line in (LOGS / f"{stage}.jsonl").read_text(encoding="utf-8").splitlines()]
        lines = [line for line in logged if "step" in line]
        minutes = [line["seconds"] / 60 for line in lines]
        for name in names:
            axis.plot(minutes, [line["held_out"][name] for line in lines], label=name.replace("_", " "))
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("minutes of training")
        axis.set_ylim(0, 1.02)
        axis.grid(alpha=0.3)
        axis.legend(loc="lower right", fontsize=9)
    figure.tight_layout()
    figure.savefig(LOGS / "curves.png", dpi=110)


if __name__ == "__main__":
    main()
