"""The command line's words -> ExportOptions."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

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
        attention=AttentionChoice(args.allocation_layer, args.selection_layer, _heads(args.heads), args.with_keys),
        block_size=args.block_size,
        lm_head_parts=args.lm_head_parts,
        quantisation=args.quantisation,
        calibration=None if args.calibration is None else Path(args.calibration),
        calibration_tokens=args.calibration_tokens,
        embedding=args.embedding,
        vision_precision=args.vision_precision,
        vision_tower=None if args.vision_tower is None else Path(args.vision_tower),
        chat_template=None if args.chat_template is None else Path(args.chat_template),
    )


def _heads(text: str) -> str:
    """In the manifest's form: "007" is "7"."""
    if text == "sum":
        return text
    if not re.fullmatch("[0-9]{1,9}", text):  # int() takes the digits of every script
        raise InputError(f"--heads {text!r}", expected="sum, or the number of one head", fix="pass another --heads")
    return str(int(text))
