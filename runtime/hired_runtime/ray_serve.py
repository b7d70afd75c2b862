"""The server as a Ray Serve application: replicas of it behind Serve's own HTTP proxy, on one machine or many.

    serve run hired_runtime.ray_serve:app bundle=/shared/bundle visual_tokens=20% min-replicas=1 max-replicas=4

The same routes, the same answers: each replica is a process with one opened bundle and `serving.create_app` over it.
Serve decides which replica gets a request, how many there are, and starts another for one that died or does not come
back. What `hired-edge serve` does with connections (their number, slow clients) is the proxy's business here, which
does less of it: docs/scaling.md says what. Needs the `ray` extra; Ray is imported by `app` alone.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hired_edge.cli import Parser
from hired_edge.errors import InputError
from hired_edge.manifest import Manifest
from hired_runtime.commands import options, serve
from hired_runtime.ray_memory import process_bytes
from hired_runtime.trust.keys import PublicKey

if TYPE_CHECKING:
    from ray.serve import Application

    from hired_runtime.serving.settings import ServerSettings

_AHEAD = 2
"""Requests that a replica holds beside those that run, so that a row that becomes free finds the next one there."""
_LOOKS = 8
"""And as many more that take no row: `/ready`, `/metrics`, the page."""
_LAST_STEP_S = 2.0
_CONSTRUCTIONS = 3
"""How often Serve tries to make one, before it says that the application cannot be deployed."""
_BY_SESSION = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
_NOT_HERE = ("host", "port", "verbose")
_PATHS = ("bundle", "allowed_media_path")


@dataclass(frozen=True)
class Opening:
    """What a replica is made of; it is sent to the machine that it runs on.

    Args:
        args: as `hired-edge serve` has them, with absolute paths.
        keys: whose signature the bundle must have.
    """

    args: argparse.Namespace
    manifest: Manifest
    settings: ServerSettings
    keys: tuple[PublicKey, ...] | None
    queue: int


class Replica:
    """One process: an engine and its ASGI application. Serve makes one of it where the bundle is readable."""

    def __init__(self, opening: Opening) -> None:
        from hired_runtime.serving.app import create_app
        from hired_runtime.serving.engine import Engine

        model = serve.opened(opening.args, opening.manifest, opening.keys)
        self._watchdog_s = opening.args.watchdog
        self._engine = Engine(model, queue=opening.queue)
        self._application = create_app(self._engine, opening.settings)

    def __serve_build_asgi_app__(self) -> Any:
        """What Serve hands requests to."""
        return self._application

    def check_health(self) -> None:
        """Called by Serve every few seconds: raises where another process should take this one's place."""
        if not self._engine.ready:
            raise RuntimeError("the engine takes no requests")
        if self._watchdog_s and self._engine.inside_s > self._watchdog_s:
            raise RuntimeError(f"the engine has not come back for {self._watchdog_s} s")

    def __del__(self) -> None:
        """Called by Serve once what ran is finished, or its time is over; and of one that was never whole."""
        if hasattr(self, "_engine"):
            self._engine.close(_LAST_STEP_S)


def app(args: Mapping[str, Any]) -> Application:
    """Builds the application: `serve run hired_runtime.ray_serve:app NAME=VALUE ...`, or `args` in Serve's YAML.

    Args:
        args: `bundle`, which every machine must find there; the options of `hired-edge serve` but those of its socket;
            `replicas`, or `min-replicas` and `max-replicas`, between which Serve chooses by load; `gpus` of a replica
            (0), which takes `threads` CPUs (1); `affinity`, after which requests with the same `x-session-id` go to the
            same replica. Clients must show the key in HIRED_EDGE_API_KEY, if there is one where this is called.

    Raises:
        HiredEdgeError: an option or a bundle that cannot be used.
        ModuleNotFoundError: an extra is not installed.
    """
    import ray.serve

    chosen = _parsed(args)
    keys = options.public_keys(chosen)
    manifest, settings = serve.checked(chosen, serve.api_key(chosen.api_key), keys)
    chosen.api_key = None  # it is in the settings, which do not show it
    rows = serve.rows_at_once(chosen, manifest)
    ongoing = rows + _AHEAD + _LOOKS
    deployment = ray.serve.deployment(
        ray.serve.ingress()(Replica),
        name="hired-edge",
        ray_actor_options=_resources(chosen, manifest, rows),
        max_ongoing_requests=ongoing,
        max_queued_requests=chosen.queue,
        backpressure_config={"retry_after_s": 1},
        graceful_shutdown_timeout_s=chosen.shutdown_timeout,
        max_constructor_retry_count=_CONSTRUCTIONS,
        **_replicas(chosen, rows),
    )
    return deployment.bind(Opening(chosen, manifest, settings, keys, ongoing))


def _parsed(args: Mapping[str, Any]) -> argparse.Namespace:
    """The arguments as `hired-edge serve` would have read them."""
    parser = Parser(prog="hired_runtime.ray_serve:app", add_help=False, allow_abbrev=False)
    serve.add_arguments(parser)
    for name in ("replicas", "min-replicas", "max-replicas"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--affinity", choices=("true", "false"), default="false")
    plain = {name.replace("_", "-"): value for name, value in args.items()}
    for name in _NOT_HERE:
        if name in plain:
            raise InputError(f"{name} of the application", expected="none", fix="set it where Serve is started")
    argv = [str(plain.pop("bundle"))] if "bundle" in plain else []
    for name, value in plain.items():
        for each in value if isinstance(value, (list, tuple)) else [value]:
            argv.append(f"--{name}={str(each).lower() if isinstance(each, bool) else each}")
    chosen = parser.parse_args(argv)
    for name in ("replicas", "min_replicas", "max_replicas"):
        options.positive(name, getattr(chosen, name))
    for name in _PATHS:
        if getattr(chosen, name) is not None:
            setattr(chosen, name, os.path.abspath(getattr(chosen, name)))
    chosen.threads = chosen.threads or 1
    return chosen


def _replicas(chosen: argparse.Namespace, rows: int) -> dict[str, Any]:
    """How many there are, a number or what Serve chooses by; and how it chooses among them."""
    router = {"request_router_config": {"request_router_class": _BY_SESSION}} if chosen.affinity == "true" else {}
    if chosen.min_replicas is None and chosen.max_replicas is None:
        return {"num_replicas": chosen.replicas or 1, **router}
    least = chosen.min_replicas or 1
    most = chosen.max_replicas or least
    if chosen.replicas is not None or least > most:
        raise InputError(
            f"replicas {chosen.replicas}, min-replicas {least}, max-replicas {most}",
            expected="a number, or from the least to the most",
            fix="pass one or the other",
        )
    by_load = {"min_replicas": least, "max_replicas": most, "target_ongoing_requests": rows}
    return {"autoscaling_config": by_load, **router}


def _resources(chosen: argparse.Namespace, manifest: Manifest, rows: int) -> dict[str, Any]:
    """What a replica takes of a machine."""
    memory = process_bytes(manifest, chosen.visual_tokens, rows, chosen.images)
    return {"num_cpus": chosen.threads, "num_gpus": chosen.gpus, "memory": memory}
