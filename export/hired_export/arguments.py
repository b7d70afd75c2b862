"""The command line's words -> ExportOptions."""

from __future__ import annotations

import argparse

from hired_edge.errors import InputError
from hired_export.exporter import ExportOptions
from hired_export.families import AttentionChoice


def options_from(args: argparse.Namespace) -> ExportOptions:
    """Raises InputError for a word that means nothing."""
    return ExportOptions(
        target=args.target,
        precision=args.precision,
        visual_tokens=tuple(part.strip() for part in args.visual_tokens.split(",")),
        max_text_tokens=args.max_text_tokens,
        max_new_tokens=args.max_new_tokens,
        max_batch=args.max_batch,
        max_images=args.max_images,
        attention=AttentionChoice(args.allocation_layer, args.selection_layer, _heads(args.heads)),
        block_size=args.block_size,
    )


def _heads(text: str) -> str:
    if text != "sum" and not text.isdecimal():
        raise InputError(f"--heads {text!r}", expected="sum, or the number of one head", fix="pass another --heads")
    return text
