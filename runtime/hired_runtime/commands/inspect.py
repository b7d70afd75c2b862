"""hired-edge inspect: what a bundle says about itself."""

from __future__ import annotations

import argparse
from pathlib import Path

from hired_edge import strict
from hired_edge.bundle import read_manifest
from hired_edge.manifest import Manifest
from hired_runtime.commands import options

help = "print what a bundle says about itself"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser)
    parser.add_argument("--json", action="store_true", help="print the whole manifest as JSON")


def run(args: argparse.Namespace) -> None:
    manifest = read_manifest(Path(args.bundle))
    if args.json:
        options.print_json(strict.to_json(manifest))
    else:
        print(describe(manifest))


def describe(manifest: Manifest) -> str:
    """A page for people."""
    text, vision, limits, stored = manifest.text, manifest.vision, manifest.limits, manifest.quantisation
    plan = manifest.memory
    worst = max(manifest.parity, key=lambda check: check.max_abs_error / check.tolerance, default=None)
    rows = {
        "family": f"{manifest.family} from {manifest.checkpoint}, target {manifest.target}, {stored.precision}",
        "text": f"{text.model_type}: {text.layers} layers, width {text.hidden_size}, "
        f"{text.heads} heads over {text.kv_heads}, vocabulary {text.vocab_size}",
        "vision": f"{vision.tiling.patches_per_tile} patches a tile, up to {limits.tiles} tiles; attention of layers "
        f"{vision.allocation_layer} and {vision.selection_layer} ({vision.heads})",
        "budgets": f"{', '.join(limits.budgets)}: at most {limits.visual_tokens} visual tokens",
        "sequence": f"{limits.formula}; batch {limits.batch}, {limits.images} picture(s)",
        "memory": f"weights {_mib(plan.weights)}, cache {_mib(plan.kv_cache)}, embedding on disk "
        f"{_mib(plan.embedding_mapped)}",
        "parity": "not checked"
        if worst is None
        else f"{len(manifest.parity)} checks; closest to its tolerance: {worst.piece}, "
        f"{worst.max_abs_error:.1e} of {worst.tolerance:.1e}",
        "files": f"{len(manifest.files)}, {_mib(sum(file.bytes for file in manifest.files.values()))}",
        "written by": manifest.producer,
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def _mib(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"
