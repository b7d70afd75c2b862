"""`python -m demo.training`: draws the scenes, trains tower, projector and text model, and writes the checkpoint.

Under three hours on two CPU cores; a GPU is used where there is one. Every stage goes on where it was interrupted. Its
state lies in a folder named after the code and the options that made it, so that no two trainings mix.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from demo.folders import check_replaceable
from demo.training import language, pool, tower
from demo.training.architecture import make_model
from demo.training.save import save
from demo.training.words import FILE, VOCABULARY, make_tokenizer

ROOT = Path(__file__).resolve().parent.parent
DRAWING = (
    *sorted((ROOT / "scenes").glob("*.py")),
    *(ROOT / "training" / name for name in ("pool.py", "architecture.py")),
)
CODE = (*DRAWING, *sorted((ROOT / "training").glob("*.py")), FILE)
TRAIN_SEED, LOGGED_SEED = 1, 900  # LOGGED_SEED's scenes are held out for the log; those of the reports have other seeds


def fingerprint(files: Iterable[Path], **options: object) -> str:
    """The same code and options give the same name."""
    content = hashlib.sha256(repr(sorted(options.items())).encode())
    for file in files:
        content.update(file.read_bytes())
    return content.hexdigest()[:12]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.training", description=__doc__)
    parser.add_argument("--scenes", type=int, default=14000, metavar="N", help="(default: 14000)")
    parser.add_argument("--crop-steps", type=int, default=1000, metavar="N", help="(default: 1000)")
    parser.add_argument("--mixed-steps", type=int, default=1000, metavar="N", help="(default: 1000)")
    parser.add_argument("--language-scenes", type=int, default=12000, metavar="N", help="(default: 12000)")
    parser.add_argument("--language-steps", type=int, default=2600, metavar="N", help="(default: 2600)")
    parser.add_argument(
        "--state", type=Path, default=ROOT / ".training", metavar="DIR", help="(default: demo/.training)"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "checkpoint", metavar="DIR", help="(default: demo/checkpoint)"
    )
    args = parser.parse_args()

    check_replaceable(args.out, "config.json")

    torch.manual_seed(0)
    tokenizer: Any = make_tokenizer()
    ids = tokenizer.convert_tokens_to_ids
    model = make_model(VOCABULARY, ids("<image>"), tokenizer.bos_token_id, tokenizer.eos_token_id)
    scenes = args.state / f"scenes-{fingerprint(DRAWING)}"
    pool.ensure(scenes, TRAIN_SEED, args.scenes)
    pool.ensure(scenes, LOGGED_SEED, pool.CHUNK)
    samples, held_out = pool.load(scenes, TRAIN_SEED, args.scenes), pool.load(scenes, LOGGED_SEED, pool.CHUNK)
    sizes = {name: value for name, value in vars(args).items() if name not in ("state", "out")}
    state = args.state / f"model-{fingerprint(CODE, **sizes)}"
    state.mkdir(parents=True, exist_ok=True)
    seer, heads = tower.train(model.model.vision_tower, samples, held_out, state, args.crop_steps, args.mixed_steps)
    samples = samples[: args.language_scenes]
    seen = language.features(seer, samples, state / "features.pt")
    held_seen = language.encode(seer, held_out)
    del samples, held_out
    language.initialise(model, heads, seen)
    language.train(model, tokenizer, seen, held_seen, state, args.language_steps)
    save(model, tokenizer, args.out)


if __name__ == "__main__":
    main()
