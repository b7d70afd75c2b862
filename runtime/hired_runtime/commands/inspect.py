"""hired-edge inspect: what a bundle says about itself."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from hired_edge import strict
from hired_edge.bundle import read_manifest
from hired_edge.engines import check_onnxruntime
from hired_edge.errors import InputError
from hired_edge.manifest import Manifest
from hired_edge.planner.config import model_shape, read_config
from hired_runtime.commands import options
from hired_runtime.trust.keys import PublicKey
from hired_runtime.trust.signatures import trusted

if TYPE_CHECKING:
    from hired_runtime.measured_memory import Comparison

help = "print what a bundle says about itself"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser)
    parser.add_argument("--json", action="store_true", help="print the whole manifest as JSON")
    parser.add_argument(
        "--measure",
        metavar="CHECKPOINT-OR-CONFIG",
        help="ask once on this machine's CPU, and hold what `hired-edge plan` says of that config against it",
    )
    parser.add_argument("--visual-tokens", metavar="B|P%", help="of --measure (default: the largest exported)")


def run(args: argparse.Namespace) -> None:
    keys = options.public_keys(args)
    manifest = read_manifest(Path(args.bundle), trusted(keys))
    if args.measure is None and args.visual_tokens is not None:
        raise InputError(
            "--visual-tokens without --measure",
            expected="a request to measure; the manifest has every budget",
            fix="add --measure CHECKPOINT-OR-CONFIG, or leave it out",
        )
    if args.measure is not None:
        measured = _measured(args, keys)
        if args.json:
            options.print_json(dataclasses.asdict(measured))
        else:
            print(compared(measured))
    elif args.json:
        options.print_json(strict.to_json(manifest))
    else:
        print(describe(manifest))


def _measured(args: argparse.Namespace, keys: tuple[PublicKey, ...] | None) -> Comparison:
    from hired_runtime.measured_memory import Job, compare, idle_bytes  # pictures, and an engine in other processes

    check_onnxruntime()
    return compare(model_shape(read_config(args.measure)), Job(args.bundle, args.visual_tokens, keys), idle_bytes())


def compared(comparison: Comparison) -> str:
    """Three lines for people: planned and measured."""
    got = comparison.measured
    rows = (
        ("weights and cache", comparison.planned_weights_and_cache, comparison.weights_and_cache),
        ("process at its peak", comparison.planned_peak, got.peak),
    )
    lines = [
        f"{name:<20} planned {_mib(planned):>12}  measured {_mib(real):>12}  ({planned / real - 1:+.1%})"
        for name, planned, real in rows
    ]
    request = f"{got.visual_tokens} visual, {got.text_tokens} text and {got.new_tokens} new tokens"
    return "\n".join([*lines, f"{request}; {_mib(comparison.idle)} of the process are there without a model"])


def describe(manifest: Manifest) -> str:
    """A page for people."""
    text, vision, limits, stored = manifest.text, manifest.vision, manifest.limits, manifest.quantisation
    plan = manifest.memory
    worst = max(manifest.parity, key=lambda check: check.max_abs_error / check.tolerance, default=None)
    rows = {
        "family": f"{manifest.family} from {manifest.checkpoint}, target {manifest.target}, {stored.precision}",
        "text": f"{text.model_type}: {text.layers} layers, width {text.hidden_size}, "
        f"{text.heads} heads over {text.kv_heads}, vocabulary {text.vocab_size}",
        "vision": f"{vision.tiling.patches_per_tile} visual tokens a tile, up to {limits.tiles} tiles; attention of "
        f"layers {vision.allocation_layer} and {vision.selection_layer} ({vision.heads})"
        + (", int8" if stored.vision == "int8" else ""),
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
