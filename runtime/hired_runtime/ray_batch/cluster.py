"""A Ray cluster for as long as a run takes: started here, or one that runs already; and how many workers fit there.

Ray is kept quiet: what it prints by itself is of no use to whoever waits for answers. Knows nothing of batches.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple, TypeVar

from hired_edge.errors import InputError

Started = TypeVar("Started")

LOCAL, AUTO = "local", "auto"
_CONNECT_S = 10
_STARTS, _LATE = 3, "timed out during startup"
_OBJECTS_BYTES = 256 * 2**20
"""Of a cluster that is started here: what passes through it are references to rows, and answers."""
_TRACEBACK = re.compile(r'^ +File ".*", line \d+', re.MULTILINE)
_COLOUR = re.compile(r"\x1b\[\d+m")
_EXPECTED = "local, auto, or HOST:PORT of a Ray cluster that this machine is part of"


def check_installed() -> None:
    """Raises ModuleNotFoundError where Ray is not installed; it is not loaded yet, which takes a second."""
    for name in ("ray", "pyarrow"):
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


class Share(NamedTuple):
    """What a worker takes of a machine.

    Args:
        cpus, gpus: of each, whole ones.
        memory: bytes.
    """

    cpus: int
    gpus: int
    memory: int

    def __str__(self) -> str:
        gpus = f", {self.gpus} GPU" if self.gpus else ""
        return f"{self.cpus} CPU{gpus}, {self.memory / 2**20:.0f} MiB"


@contextlib.contextmanager
def cluster(address: str) -> Iterator[None]:
    """Connects to a cluster, or starts one on this machine, until the end; then whatever this process had there ends.

    Args:
        address: "local" to start one, "auto" for the one that this machine is part of, or its HOST:PORT.

    Raises:
        InputError: nothing to connect to.
        ModuleNotFoundError: Ray is not installed.
    """
    _check_address(address)
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # a thread that outlives a cluster would start another
    import ray
    import ray.data

    if ray.is_initialized():
        raise InputError(
            "a process that is connected to a Ray cluster already",
            expected="one that is not",
            fix="call ray.shutdown()",
        )
    with contextlib.ExitStack() as stack:
        stack.enter_context(_quiet())
        where: dict[str, Any] = {"address": address}
        if address == LOCAL:
            folder = tempfile.mkdtemp(prefix="hired-edge-ray-")
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            cores = len(os.sched_getaffinity(0))
            where |= {"num_cpus": cores, "object_store_memory": _OBJECTS_BYTES, "include_dashboard": False}
            where |= {"_temp_dir": folder}
        stack.callback(ray.shutdown)

        def init() -> None:
            with _stderr_to(os.devnull):
                ray.init(**where, logging_level=logging.CRITICAL, log_to_driver=False)

        try:
            patiently(init)
        except Exception as error:  # among them Ray's own, and a plain one where a node does not start in time
            got = f"--ray {address}: {reason(error.__cause__ or error)}"
            raise InputError(got, expected=_EXPECTED, fix=_fix(error)) from None
        yield


def patiently(start: Callable[[], Started], clean: Callable[[], object] = lambda: None) -> Started:
    """What `start` gives. Ray gives a node half a minute to start, which a busy machine may need for Python alone.

    Args:
        start: called again where a node was too late.
        clean: called in between.
    """
    for _ in range(_STARTS - 1):
        try:
            return start()
        except Exception as error:
            if _LATE not in str(error):
                raise
            clean()
    return start()


def room(nodes: Sequence[Mapping[str, Any]], share: Share) -> int:
    """Workers that fit on a cluster's machines at a time, whatever else runs there.

    Args:
        nodes: as `ray.nodes()` gives them.
    """
    asked = {"CPU": share.cpus, "GPU": share.gpus, "memory": share.memory}
    total = 0
    for node in nodes:
        if node["Alive"]:
            has = node["Resources"]
            total += min(math.floor(has.get(name, 0) / amount) for name, amount in asked.items() if amount)
    return total


def gpus(nodes: Sequence[Mapping[str, Any]]) -> int:
    """Of a cluster."""
    return int(sum(node["Resources"].get("GPU", 0) for node in nodes if node["Alive"]))


def reason(error: BaseException) -> str:
    """What Ray says of an error, in a line: without a traceback, which it puts before that, its colours and advice."""
    text = _COLOUR.sub("", str(error)).strip()
    if _TRACEBACK.search(text):
        text = text.splitlines()[-1]
    return " ".join(text.partition(" Note: ")[0].split())[:300]


def _check_address(address: str) -> None:
    """That there is somebody to connect to: Ray itself tries for minutes, and says so in many lines."""
    if address in (LOCAL, AUTO):
        return
    if address.startswith("ray://"):
        raise InputError(
            f"--ray {address}: Ray Data does not run through Ray's client",
            expected=_EXPECTED,
            fix="run this on a machine of the cluster with --ray auto, or by: ray job submit",
        )
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdecimal()):
        raise InputError(f"--ray {address}", expected=_EXPECTED, fix="pass one of them")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"--ray {address}: nobody answers there ({reason})",
            expected="the address that `ray start --head` has printed",
            fix="check it, and that the cluster runs",
        ) from None


def _fix(error: Exception) -> str:
    text = f"{error} {error.__cause__}".lower()
    if _LATE in text:
        return "run the same command again when this machine has less to do"
    if "token" in text:
        return "set RAY_AUTH_MODE=token, with the cluster's token in RAY_AUTH_TOKEN or ~/.ray/auth_token"
    if "version mismatch" in text:
        return "install the cluster's versions of Ray and Python here"
    return "start a cluster with `ray start --head`, or pass --ray local"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Ray's loggers off, but for its own files; what its threads print on stdout goes nowhere."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its C++ part writes to stderr
    consoles = [each for each in logging.getLogger("ray.data").handlers if isinstance(each, logging.StreamHandler)]
    levels = [each.level for each in consoles]
    for each in consoles:
        each.setLevel(logging.CRITICAL + 1)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for each, level in zip(consoles, levels, strict=True):
            each.setLevel(level)


@contextlib.contextmanager
def _stderr_to(path: str) -> Iterator[None]:
    """The file descriptor, which C++ writes to, and processes that are started inherit."""
    sys.stderr.flush()
    before = os.dup(2)
    away = os.open(path, os.O_WRONLY)
    try:
        os.dup2(away, 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(away)
