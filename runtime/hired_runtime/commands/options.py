"""Options that several commands share, and what they become."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from hired_edge.bundle import bundle_bytes, read_manifest
from hired_edge.errors import InputError
from hired_edge.hashing import OnBytes
from hired_edge.packing import NEWLINES
from hired_edge.policies import POLICIES
from hired_edge.selection import PARTITIONS, Selection
from hired_runtime import backends
from hired_runtime.positions import POSITIONS
from hired_runtime.sampling import SamplingOptions
from hired_runtime.text import StopStrings
from hired_runtime.trust.keys import PublicKey, load_public_key
from hired_runtime.trust.signatures import trusted


def add_bundle(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help="a folder that hired-edge export wrote")
    add_signature(parser)


def add_signature(parser: argparse.ArgumentParser) -> None:
    """Whose signature a bundle must have; `public_keys` reads it."""
    parser.add_argument(
        "--require-signature",
        action="append",
        metavar="PUBLIC-KEY",
        help="the bundle, and engines that are used, must be signed by this key; may be repeated: any of them will do",
    )


def public_keys(args: argparse.Namespace) -> tuple[PublicKey, ...] | None:
    """The keys of `add_signature`; None = no signature is asked for.

    Raises:
        InputError: a file that is no Ed25519 public key.
    """
    paths = args.require_signature
    return None if paths is None else tuple(load_public_key(path) for path in paths)


def add_selection(parser: argparse.ArgumentParser) -> None:
    """How many visual tokens, and how they are chosen."""
    parser.add_argument("--visual-tokens", metavar="B|P%", help="budget over all pictures (default: as exported)")
    add_policy(parser)


def add_policy(parser: argparse.ArgumentParser) -> None:
    """How visual tokens are chosen, whatever the budget."""
    parser.add_argument("--policy", default="hired", choices=list(POLICIES), help="selection policy (default: hired)")
    parser.add_argument("--alpha", default="0.5", help="the whole picture's share of the budget (default: 0.5)")
    parser.add_argument("--newlines", choices=list(NEWLINES), help="newline policy (default: the policy's or family's)")
    parser.add_argument("--threads", type=int, metavar="N", help="of the engine (default: its own choice)")


def add_backend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backend",
        choices=backends.NAMES,
        help="(default: tensorrt where engines were built into the bundle and a GPU is present, else onnxruntime)",
    )


def add_request(parser: argparse.ArgumentParser) -> None:
    """What is asked of a model beside the messages and their pictures; `request_options` reads it."""
    add_selection(parser)
    parser.add_argument(
        "--partitions", default="all", choices=PARTITIONS, help="base: without the high-resolution tiles (default: all)"
    )
    parser.add_argument(
        "--positions",
        choices=POSITIONS,
        help="kept tokens stand side by side, or keep their places (default: the policy's, mostly compact)",
    )
    add_backend(parser)
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="(default: as exported)")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0 = greedy (default)")
    parser.add_argument("--top-k", type=int, default=0, metavar="K", help="0 = all (default)")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="ends the answer; may be repeated")


def request_options(args: argparse.Namespace) -> dict[str, Any]:
    """Options of `Request` as `add_request` has them.

    Raises:
        InputError: one of them is out of its range.
    """
    StopStrings(args.stop)  # refuses an empty one
    return {
        "visual_tokens": args.visual_tokens,
        "policy": args.policy,
        "alpha": args.alpha,
        "newlines": args.newlines,
        "partitions": args.partitions,
        "positions": args.positions,
        "max_new_tokens": positive("--max-new-tokens", args.max_new_tokens),
        "sampling": SamplingOptions(args.temperature, args.top_k, args.top_p, args.seed),
        "stop": args.stop,
    }


def verification_bar(bundle: str, keys: tuple[PublicKey, ...] | None) -> OnBytes | None:
    """As `bytes_bar`, while a bundle is hashed that must be signed by one of the keys."""
    if not sys.stderr.isatty():
        return None
    return bytes_bar("verifying", bundle_bytes(read_manifest(Path(bundle), trusted(keys))))


def bytes_bar(word: str, total: int) -> OnBytes | None:
    """A progress line on stderr until `total` bytes are done, if anyone is looking and it takes a while."""
    if not sys.stderr.isatty() or total <= 2**28:  # less is done in a blink
        return None
    done = 0

    def on_bytes(count: int) -> None:
        nonlocal done
        done += count
        end = "\r\033[K" if done >= total else ""
        print(f"\r{word} {100 * done // total:3d} %{end}", end="", file=sys.stderr, flush=True)

    return on_bytes


def visual_report(selections: list[Selection]) -> dict[str, Any] | list[dict[str, Any]]:
    """The `visual` object of `--json`: an object for one picture, a list for several."""
    reports = [
        {
            "total": selection.tiling.stock_tokens,
            "eligible": selection.eligible,
            "budget": selection.budget,
            "kept": selection.kept,
            "newlines": selection.newlines,
            "grid": list(selection.tiling.grid),
            "per_partition": selection.counts,
            "indices": [indices.tolist() for indices in selection.indices],
        }
        for selection in selections
    ]
    return reports[0] if len(reports) == 1 else reports


def print_json(report: dict[str, Any]) -> None:
    """One object on one line: the last of stdout."""
    print(json.dumps(report, allow_nan=False))


def positive(name: str, value: int | None) -> int | None:
    if value is not None and value < 1:
        raise InputError(f"{name} {value}", expected="1 or more", fix=f"pass another {name}")
    return value


def listed(text: str) -> list[str]:
    """ "a, b" -> ["a", "b"].

    Raises:
        InputError: nothing between two commas.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise InputError(f"the list {text!r}", expected="values between commas", fix='write it as "100%,20%"')
    return parts
