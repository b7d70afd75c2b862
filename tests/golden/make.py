"""Makes the committed bundles: a small LLaVA-NeXT with seeded random weights, in float32 and in int4.

    python -m tests.golden.make            # rewrites tests/golden/bundle and tests/golden/bundle-int4
    python -m tests.golden.make --out DIR  # writes both below DIR

The same versions (constraints.txt) give the same bytes, but for what is measured: the golden outputs and the parity
figures, whose last digits depend on the processor. The model's words are noise; its geometry, budgets, selection and
timings are real.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hired_export import parity
from hired_export.exporter import ExportOptions, export
from tests.tiny.checkpoints import write_checkpoint

HERE = Path(__file__).parent
BUNDLES: dict[str, dict[str, Any]] = {
    "bundle": {},
    "bundle-int4": {"precision": "int4", "block_size": 32, "quantisation": "rtn"},
}
"""Folder -> options."""

VISION = {"image_size": 112, "hidden_size": 48, "num_hidden_layers": 6, "intermediate_size": 96}
TEXT = {"hidden_size": 64, "num_hidden_layers": 4, "intermediate_size": 128, "max_position_embeddings": 1024}
PINPOINTS = [[112, 224], [224, 112], [224, 224], [336, 112], [112, 336]]
"""As LLaVA-NeXT's, a third of the size: 64 patches a tile where it has 576."""
LIMITS = {"visual_tokens": ("100%", "40%", "20%"), "max_text_tokens": 128, "max_new_tokens": 48}


def write(checkpoint: Path) -> None:
    """The checkpoint that both come from."""
    write_checkpoint(
        checkpoint,
        "llava_next",
        "mistral",
        layout="v4",
        vision_config=VISION,
        text_config=TEXT,
        image_grid_pinpoints=PINPOINTS,
    )


def make(out: Path) -> None:
    """Writes both bundles below `out`, replacing what is there."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "llava-next-random"
        write(checkpoint)
        for name, chosen in BUNDLES.items():
            fresh = Path(folder) / name
            options = ExportOptions(**chosen, max_batch=2, max_images=2, progress=False, **LIMITS)
            export(checkpoint, fresh, options, check=parity.check)
            shutil.rmtree(out / name, ignore_errors=True)
            shutil.copytree(fresh, out / name)


def main() -> None:
    parser = argparse.ArgumentParser(description="make the committed bundles")
    parser.add_argument("--out", type=Path, default=HERE)
    make(parser.parse_args().out)


if __name__ == "__main__":
    main()
