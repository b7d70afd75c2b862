"""hired-edge serve: an OpenAI-compatible server over one bundle, and a page that shows what it keeps."""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np

import hired_runtime
from hired_edge.bundle import read_manifest
from hired_edge.errors import InputError
from hired_edge.hashing import OnBytes
from hired_edge.manifest import Manifest
from hired_edge.policies import POLICIES, policy_named
from hired_edge.selection import check_needs
from hired_runtime.commands import options
from hired_runtime.pictures import MAX_PIXELS
from hired_runtime.request import Request
from hired_runtime.trust.keys import PublicKey
from hired_runtime.trust.signatures import trusted

if TYPE_CHECKING:
    from hired_runtime.serving.settings import ServerSettings

help = "answer over HTTP as OpenAI's API does, and show a page"

KEY_VARIABLE = "HIRED_EDGE_API_KEY"
_ROWS = 4
_MIB = 2**20
_PICTURES, _PICTURES_BYTES = 16, 64 * _MIB
_LAST_STEP_S = 2.0
"""For the engine's last step, once all clients have their answers or are gone; and as long again."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser)
    parser.add_argument("--host", default="127.0.0.1", help="(default: 127.0.0.1; any other but loopback needs a key)")
    parser.add_argument("--port", type=int, default=8000, help="0 = one that is free (default: 8000)")
    parser.add_argument("--api-key", metavar="KEY", help=f"what clients must show; better in {KEY_VARIABLE}")
    parser.add_argument("--model-name", metavar="NAME", help="(default: the bundle's folder)")
    parser.add_argument("--visual-tokens", metavar="B|P%", help="the largest budget, and the default (as exported)")
    parser.add_argument(
        "--policy", default="hired", choices=list(POLICIES), help="where a request names none (default: hired)"
    )
    parser.add_argument("--batch", type=int, metavar="N", help=f"answers at once (as exported, at most {_ROWS})")
    parser.add_argument("--images", type=int, metavar="N", help="pictures of a request (default: as exported)")
    parser.add_argument(
        "--pictures",
        type=int,
        metavar="N",
        help="whose features stay for further questions (default: as --batch; up to 16 in 64 MiB)",
    )
    parser.add_argument("--queue", type=int, default=32, metavar="N", help="requests that may wait (default: 32)")
    parser.add_argument(
        "--allowed-media-path", metavar="DIR", help="below it clients may name files (default: send pictures only)"
    )
    parser.add_argument("--max-body-mb", type=int, default=20, metavar="N", help="of a request, MiB (default: 20)")
    parser.add_argument(
        "--max-pixels",
        type=int,
        default=MAX_PIXELS // 2,
        metavar="N",
        help=f"of a picture (default: {MAX_PIXELS // 2})",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="of the engine (default: its own choice)")
    options.add_backend(parser)
    parser.add_argument(
        "--shutdown-timeout", type=int, default=30, metavar="S", help="for running answers, seconds (default: 30)"
    )
    parser.add_argument(
        "--watchdog",
        type=int,
        default=600,
        metavar="S",
        help="end the process if one prompt or step takes longer, seconds; 0 = never (default: 600)",
    )
    parser.add_argument("--verbose", action="store_true", help="a line on stderr for each request")


def run(args: argparse.Namespace) -> None:
    from hired_runtime.serving.app import create_app  # the `serve` extra
    from hired_runtime.serving.engine import Engine
    from hired_runtime.serving.server import Server, address_of, bound_socket

    keys = options.public_keys(args)
    manifest, settings = checked(args, api_key(args.api_key), keys)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    warnings.filterwarnings("ignore", module=r"PIL\.")  # or strangers' pictures could fill the log
    with bound_socket(args.host, args.port, key=settings.api_key is not None) as listening:
        model = opened(args, manifest, keys, options.verification_bar(args.bundle, keys))
        engine = Engine(model, queue=args.queue)
        address = address_of(listening)

        def say() -> None:
            print(f"{settings.model_name} is served at {address}/v1, with a page at {address}/", flush=True)

        try:
            server = Server(
                create_app(engine, settings),
                engine,
                settings,
                shutdown_timeout_s=args.shutdown_timeout,
                watchdog_s=args.watchdog or math.inf,
                verbose=args.verbose,
                on_started=say,
            )
            server.run(sockets=[listening])
        finally:
            ended = engine.close(_LAST_STEP_S)
        if server.stuck:
            _leave(
                os.EX_SOFTWARE,
                f"the engine has not come back for {args.watchdog} s (--watchdog); the process ends, to start again",
            )
        if not ended:
            _leave(os.EX_OK, "the engine was still busy; it was not waited for")


def checked(
    args: argparse.Namespace, key: str | None, keys: tuple[PublicKey, ...] | None
) -> tuple[Manifest, ServerSettings]:
    """The bundle's manifest and how requests are taken, if these options can be together; nothing is opened yet.

    Args:
        key: that clients must show.
        keys: whose signature the bundle must have; None = nobody's.

    Raises:
        HiredEdgeError: an option or a bundle that cannot be used.
        ModuleNotFoundError: the `serve` extra is not installed.
    """
    from hired_runtime.serving.media import MediaLimits
    from hired_runtime.serving.settings import ServerSettings

    for name in ("batch", "images", "pictures", "queue", "max_body_mb", "max_pixels", "threads", "shutdown_timeout"):
        options.positive(f"--{name.replace('_', '-')}", getattr(args, name))
    options.positive("--watchdog", args.watchdog or None)
    if args.max_pixels > MAX_PIXELS:
        raise InputError(f"--max-pixels {args.max_pixels}", expected=f"at most {MAX_PIXELS}", fix="pass a smaller one")
    Request(messages=[], policy=args.policy, visual_tokens=args.visual_tokens)  # refuses what cannot be together
    folder = Path(args.bundle)
    manifest = read_manifest(folder, trusted(keys))
    check_needs(policy_named(args.policy), keys=manifest.vision.keys is not None)
    return manifest, ServerSettings(
        model_name=args.model_name or folder.resolve().name,
        created=int((folder / "manifest.json").stat().st_mtime),
        policy=args.policy,
        api_key=key,
        media=MediaLimits(args.max_body_mb * _MIB, args.max_pixels, media_path(args.allowed_media_path)),
        max_body_bytes=args.max_body_mb * _MIB,
    )


def opened(
    args: argparse.Namespace,
    manifest: Manifest,
    keys: tuple[PublicKey, ...] | None,
    on_bytes: OnBytes | None = None,
) -> hired_runtime.Model:
    """Opens the bundle as a server does. Raises as `hired_runtime.open`."""
    rows = rows_at_once(args, manifest)
    return hired_runtime.open(
        args.bundle,
        visual_tokens=args.visual_tokens,
        batch=rows,
        images=args.images,
        pictures=args.pictures or remembered(manifest, rows),
        threads=args.threads,
        spinning=False,  # the event loop and the decoding of pictures need the cores too
        backend=args.backend,
        public_keys=keys,
        on_bytes=on_bytes,
    )


def rows_at_once(args: argparse.Namespace, manifest: Manifest) -> int:
    """Answers that run side by side."""
    return args.batch or min(_ROWS, manifest.limits.batch)


def _leave(status: int, words: str) -> NoReturn:
    """Ends the process though the engine's thread may be in the middle of a library that cannot be stopped."""
    logging.getLogger(__name__).warning(words)
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    os._exit(status)


def remembered(manifest: Manifest, rows: int) -> int:
    """Pictures whose features are worth their memory: one a row, and more where they are small."""
    values = manifest.limits.tiles * manifest.vision.tiling.patches_per_tile * manifest.text.hidden_size
    size = values * np.dtype(manifest.text.activation_dtype).itemsize
    return max(rows, min(_PICTURES, _PICTURES_BYTES // size))


def api_key(option: str | None) -> str | None:
    """The option, or else the variable, which other users of the machine do not see in a list of processes.

    Raises:
        InputError: an empty one, or one that does not fit into a header.
    """
    key = os.environ.get(KEY_VARIABLE) if option is None else option
    if key is not None and not (key.isascii() and key.isprintable() and key.strip() == key != ""):
        raise InputError(
            f"a key of {len(key)} characters that no header can carry",
            expected="printable ASCII without spaces around it",
            fix=f"set another {KEY_VARIABLE}, or none",
        )
    return key


def media_path(option: str | None) -> Path | None:
    if option is None:
        return None
    if not Path(option).is_dir():
        raise InputError(f"--allowed-media-path {option}", expected="a folder", fix="pass another, or leave it out")
    return Path(option).resolve()
