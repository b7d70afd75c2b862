"""`hired-edge serve` as a process: what it prints, how it ends, and what it refuses to start with."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from hired_runtime.serving.server import bound_socket
from tests.tiny.commands import Capture, finish, refused, slow_steps, start
from tests.tiny.processes import PATIENCE_S
from tests.tiny.served import PICTURE, QUESTIONS, asked, until

BUNDLE = Path(__file__).parents[2] / "demo/bundle"


@contextmanager
def serving(*options: object, step_s: float = 0.0, before: str = "") -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The process, and the port it has printed. `before`: a line of a program to run first."""
    program = ["-c", f"{before}\n{slow_steps(step_s)}"] if step_s else []
    process = start("serve", BUNDLE, "--port", 0, "--model-name", "cards", *options, options=program)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(
            r"cards is served at http://127\.0\.0\.1:([0-9]+)/v1, with a page at http://127\.0\.0\.1:\1/\n", line
        )
        assert found, (line, process.stderr and process.poll() is not None and process.stderr.read())
        yield process, int(found[1])
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate(timeout=PATIENCE_S)


def post(port: int, body: dict[str, Any]) -> HTTPConnection:
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    return connection


def get(port: int, path: str) -> bytes:
    with closing(HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)) as connection:
        connection.request("GET", path)
        return connection.getresponse().read()


LONG = asked(PICTURE, QUESTIONS[0], policy="random", stream=True)


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_what_runs_be_finished(sig: signal.Signals) -> None:
    with serving("--batch", 1, step_s=0.1) as (process, port):
        running = post(port, LONG).getresponse()
        first = running.read1(10_000)
        waiting = post(port, LONG)
        until(lambda: b"\nhired_edge_requests_waiting 1.0\n" in get(port, "/metrics"))
        os.kill(process.pid, sig)
        refused = waiting.getresponse()
        assert (refused.status, json.loads(refused.read())["error"]["code"]) == (503, "shutting_down")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        text = first + running.read()
        assert text.endswith(b"data: [DONE]\n\n")
        assert finish(process) == (0, "", "")


def test_what_runs_is_not_waited_for_for_ever() -> None:
    with serving("--shutdown-timeout", 1, step_s=0.3) as (process, port):
        running = post(port, LONG).getresponse()
        running.read1(10_000)
        begin = time.monotonic()
        process.terminate()
        last = running.read().decode().split("data: ")[-1]
        assert json.loads(last)["error"]["code"] == "shutting_down"
        status, _, stderr = finish(process)
        assert status == 0
        assert "Traceback" not in stderr
        assert time.monotonic() - begin < 4.5  # the whole answer takes as long again


def test_an_engine_that_does_not_come_back_does_not_hold_the_process() -> None:
    """Its step sleeps for minutes, as a library that nothing can stop."""
    impatient = "from hired_runtime.commands import serve; serve._LAST_STEP_S = 0.2"
    with serving("--shutdown-timeout", 1, step_s=PATIENCE_S, before=impatient) as (process, port):
        running = post(port, LONG)
        until(lambda: b"\nhired_edge_requests_running 1.0\n" in get(port, "/metrics"))
        running.close()
        process.terminate()
        status, _, stderr = finish(process, timeout=PATIENCE_S / 2)
        assert status == 0
        assert stderr.count("\n") == 1
        assert "still busy" in stderr


def test_a_watchdog_ends_a_process_whose_engine_is_stuck() -> None:
    impatient = "from hired_runtime.commands import serve; serve._LAST_STEP_S = 0.2"
    with serving("--watchdog", 1, step_s=PATIENCE_S, before=impatient) as (process, port):
        clients = [post(port, LONG) for _ in range(2)]
        refused = [client.getresponse() for client in clients]
        assert [each.status for each in refused] == [503, 503]
        codes = [json.loads(each.read())["error"]["code"] for each in refused]
        assert sorted(codes) in (["engine_stuck", "engine_stuck"], ["engine_stuck", "shutting_down"])
        status, _, stderr = finish(process, timeout=PATIENCE_S / 2)
        assert status == os.EX_SOFTWARE
        assert stderr.count("\n") == 1
        assert "has not come back for 1 s (--watchdog)" in stderr


def test_a_watchdog_lets_a_slow_engine_be_slow() -> None:
    """Each step takes half of what it waits, the answer many times as long."""
    with serving("--watchdog", 1, step_s=0.5) as (process, port):
        body = {**LONG, "stream": False, "max_tokens": 5}
        assert post(port, body).getresponse().status == 200
        process.terminate()
        assert finish(process)[0] == 0


def test_a_second_signal_ends_it_at_once() -> None:
    with serving(step_s=0.5) as (process, port):
        running = post(port, LONG).getresponse()
        running.read1(10_000)
        process.terminate()
        time.sleep(0.3)
        assert process.poll() is None
        process.terminate()
        assert finish(process, timeout=2)[0] == 128 + signal.SIGTERM


def test_a_request_is_a_line_of_the_log_if_that_is_asked_for() -> None:
    with serving("--verbose") as (process, port):
        for path in ("/health", "/v1/none"):
            get(port, path)
        process.terminate()
        status, _, stderr = finish(process)
    assert status == 0
    assert '"GET /health HTTP/1.1" 200' in stderr
    assert '"GET /v1/none HTTP/1.1" 404' in stderr


def test_options_reach_the_server() -> None:
    options = ("--visual-tokens", "20%", "--policy", "top-cls", "--batch", 3, "--max-body-mb", 1)
    with serving(*options) as (process, port):
        (model,) = json.loads(get(port, "/v1/models"))["data"]
        assert (model["id"], model["hired_edge"]["policy"]) == ("cards", "top-cls")
        assert model["hired_edge"]["budgets"] == ["20%"]
        assert (model["hired_edge"]["limits"]["batch"], model["hired_edge"]["limits"]["visual_tokens"]) == (3, 64)
        answer = json.loads(post(port, asked(PICTURE, QUESTIONS[0])).getresponse().read())
        assert answer["hired_edge"]["visual"]["budget"] == 64
        large = post(port, asked(None, "x" * 2**20)).getresponse()
        assert large.status == 413
        large.close()
        process.terminate()
        assert finish(process)[0] == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "without a key"),
        (["--host", "no.such.host.invalid", "--api-key", "k"], "cannot be used"),
        (["--port", "70000"], "cannot be used"),
        (["--api-key", ""], "no header can carry"),
        (["--batch", "0"], "--batch 0"),
        (["--batch", "99"], "at most"),
        (["--queue", "0"], "--queue 0"),
        (["--visual-tokens", "120%"], "budget"),
        (["--visual-tokens", "20%", "--policy", "full"], "policy 'full'"),
        (["--policy", "prumerge"], "keys"),
        (["--images", "9"], "at most"),
        (["--max-pixels", "999999999"], "at most"),
        (["--allowed-media-path", "no/such/folder"], "a folder"),
    ],
)
def test_what_it_cannot_be_started_with_is_one_line(capsys: Capture, options: list[str], words: str) -> None:
    assert words in refused(capsys, "serve", BUNDLE, *options)


def test_a_port_that_a_server_is_about_to_serve_on_is_one_line(capsys: Capture) -> None:
    with bound_socket("127.0.0.1", 0, key=False) as taken:
        assert "cannot be used" in refused(capsys, "serve", BUNDLE, "--port", taken.getsockname()[1])


def test_a_port_that_is_taken_is_one_line(capsys: Capture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "cannot be used" in refused(capsys, "serve", BUNDLE, "--port", taken.getsockname()[1])


def test_without_its_extra_it_names_the_extra() -> None:
    """And its help needs nothing."""
    program = """
import sys
sys.modules.update(dict.fromkeys(("starlette", "uvicorn", "prometheus_client")))
from hired_edge.cli import main
sys.exit(main(sys.argv[1:]))
"""

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-c", program, "serve", *argv]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=PATIENCE_S)

    assert "--allowed-media-path" in run("--help").stdout
    result = run(str(BUNDLE))
    assert result.returncode == 2
    assert "pip install 'hired-edge[serve]'" in result.stderr
    assert result.stderr.count("\n") == 1
