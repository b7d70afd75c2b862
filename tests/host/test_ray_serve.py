"""The server as a Ray Serve application: a real Serve of two replicas, a real client, and a replica that dies."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from openai import APIStatusError, InternalServerError, OpenAI

from benchmarks.ray_machines import OBJECTS_BYTES, started
from hired_edge.errors import HiredEdgeError
from hired_runtime.ray_serve import app
from tests.tiny.processes import PATIENCE_S
from tests.tiny.served import BUNDLE, NAME, PICTURE, QUESTIONS, Reply, asked, served, until

KEY = "a key"
PAGE = Path(__file__).parents[2] / "docs/scaling.md"
pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")  # Ray Serve's own


def built(**args: Any) -> Any:
    """What Serve is told of the deployment."""
    return app({"bundle": str(BUNDLE), **args})._bound_deployment


def test_arguments_become_what_serve_is_told() -> None:
    config = built(replicas="3", batch="2", queue="5", threads=2, gpus=1)._deployment_config
    assert (config.num_replicas, config.max_queued_requests, config.autoscaling_config) == (3, 5, None)
    assert config.max_ongoing_requests > 2
    by_load = built(**{"max-replicas": 4, "min_replicas": 2})._deployment_config.autoscaling_config
    assert (by_load.min_replicas, by_load.max_replicas, by_load.target_ongoing_requests) == (2, 4, 4)
    options = built(threads=2, gpus=1).ray_actor_options
    assert (options["num_cpus"], options["num_gpus"]) == (2, 1)
    assert options["memory"] > 2**28


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"bundle": "nowhere"}, "nowhere"),
        ({"replica": 2}, "unrecognized arguments: --replica=2"),
        ({"replicas": 0}, "replicas 0; expected 1 or more"),
        ({"replicas": 2, "max_replicas": 3}, "expected a number, or from the least to the most"),
        ({"min-replicas": 4, "max-replicas": 3}, "expected a number, or from the least to the most"),
        ({"port": 8000}, "port of the application; expected none"),
        ({"batch": 1000}, "1000 batch rows asked for"),
        ({"visual_tokens": "100000"}, "100000 visual tokens asked for"),
        ({"affinity": "perhaps"}, "invalid choice: 'perhaps'"),
    ],
)
def test_what_cannot_be_served_is_refused_before_serve_hears_of_it(args: dict[str, Any], message: str) -> None:
    with pytest.raises(HiredEdgeError, match=message):
        built(**args)


def test_what_the_page_shows_can_be_built() -> None:
    text = PAGE.read_text(encoding="utf-8")
    shown = text.split("serve run hired_runtime.ray_serve:app ")[1].partition("\n")[0]
    plain = dict(pair.split("=") for pair in shown.split())
    config = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    (application,) = config["applications"]
    assert application["import_path"] == "hired_runtime.ray_serve:app"
    for args in (plain, application["args"]):
        assert args.pop("bundle") == "/shared/bundle"
        assert built(**args).name == "hired-edge"


class Running:
    """Serve on this machine, and how to reach it."""

    def __init__(self, port: int) -> None:
        self.port, self.address = port, f"http://127.0.0.1:{port}"

    def openai(self, **options: Any) -> OpenAI:
        return OpenAI(base_url=f"{self.address}/v1", api_key=KEY, max_retries=0, timeout=PATIENCE_S, **options)

    def exchange(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body, {"Authorization": f"Bearer {KEY}", **(headers or {})})
            answer = connection.getresponse()
            return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def replicas(self) -> set[int]:
        """Processes that serve."""
        processes = psutil.Process().children(recursive=True)
        return {each.pid for each in processes if "ServeReplica" in " ".join(_command(each))}

    def ask(self, session: str | None = None, **fields: Any) -> Any:
        headers = {} if session is None else {"x-session-id": session}
        return self.openai().chat.completions.create(**asked(PICTURE, QUESTIONS[0]), **fields, extra_headers=headers)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    import ray
    from ray import serve

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    before = {each.pid for each in psutil.Process().children(recursive=True)}
    folder = tempfile.mkdtemp(prefix="hired-edge-ray-")
    os.environ["HIRED_EDGE_API_KEY"] = KEY
    try:
        where = {"num_cpus": 2, "object_store_memory": OBJECTS_BYTES, "include_dashboard": False, "_temp_dir": folder}
        started(lambda: ray.init(address="local", log_to_driver=False, **where))
        serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config={"log_level": "ERROR"})
        args = {"bundle": str(BUNDLE), "model_name": NAME, "replicas": 2, "batch": 2, "queue": 4, "affinity": True}
        serve.run(app(args))
        yield Running(port)
    finally:
        del os.environ["HIRED_EDGE_API_KEY"]
        serve.shutdown()
        ray.shutdown()
        until(lambda: {each.pid for each in psutil.Process().children(recursive=True)} <= before, PATIENCE_S)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_an_openai_client_gets_what_the_server_says(running: Running) -> None:
    with served(batch=2) as one:
        expected = one.chat().json["choices"][0]["message"]["content"]
    assert running.ask().choices[0].message.content == expected
    chunks = list(running.ask(stream=True, stream_options={"include_usage": True}))
    pieces = [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]
    assert len(pieces) > 1
    assert "".join(pieces) == expected
    assert chunks[-1].usage.prompt_tokens > 300
    assert [model.id for model in running.openai().models.list()] == [NAME]
    assert running.exchange("GET", "/ready").json == {"status": "ready"}
    assert b"<!doctype html>" in running.exchange("GET", "/").body


@pytest.mark.slow
def test_one_session_stays_with_one_replica(running: Running) -> None:
    cached = [running.ask(session="mine").usage.prompt_tokens_details.cached_tokens for _ in range(6)]
    assert all(cached[1:])


@pytest.mark.slow
def test_the_guard_stands_behind_serves_proxy(running: Running) -> None:
    stranger = OpenAI(base_url=f"{running.address}/v1", api_key="another", max_retries=0)
    with pytest.raises(APIStatusError) as found:
        stranger.models.list()
    assert (found.value.status_code, found.value.code) == (401, "invalid_api_key")
    answer = running.exchange("POST", "/v1/chat/completions", b"{}", {"Content-Type": "text/plain"})
    assert (answer.status, answer.error["code"]) == (415, "unsupported_media_type")


@pytest.mark.slow
def test_more_than_may_wait_is_refused(running: Running) -> None:
    statuses: list[int] = []
    retries: list[str | None] = []

    def one() -> None:
        try:
            running.ask(session="crowd", max_tokens=16)
            statuses.append(200)
        except InternalServerError as error:
            statuses.append(error.status_code)
            retries.append(error.response.headers.get("retry-after"))

    crowd = [threading.Thread(target=one) for _ in range(80)]
    for each in crowd:
        each.start()
    for each in crowd:
        each.join()
    assert set(statuses) == {200, 503}
    assert len(statuses) == 80
    assert set(retries) == {"1"}
    assert running.ask().choices[0].message.content


@pytest.mark.slow
def test_a_client_that_leaves_gives_its_row_back(running: Running) -> None:
    for _ in range(6):  # more than the rows of both
        stream = running.ask(stream=True, max_tokens=16)
        next(iter(stream))
        stream.close()
    assert running.ask().choices[0].message.content

    def idle() -> bool:
        return b"hired_edge_requests_running 0.0" in running.exchange("GET", "/metrics").body

    until(lambda: all(idle() for _ in range(10)), PATIENCE_S)  # of either replica


@pytest.mark.slow
def test_a_replica_that_is_killed_is_replaced(running: Running) -> None:
    before = running.replicas()
    assert len(before) == 2
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(running.replicas() - {victim}) == 2 and len(running.replicas() - before) == 1, PATIENCE_S)
    end = time.monotonic() + PATIENCE_S
    answered = 0
    while answered < 8:  # by either
        assert time.monotonic() < end
        try:
            assert running.ask(session=str(answered)).choices[0].message.content
            answered += 1
        except InternalServerError:  # it was on its way to the one that died
            time.sleep(0.1)


@pytest.mark.slow
def test_there_are_more_replicas_where_there_is_more_to_do(running: Running) -> None:
    from ray import serve

    by_load = {"bundle": str(BUNDLE), "model_name": NAME, "batch": 1, "min-replicas": 1, "max-replicas": 2}
    serve.delete("default")
    serve.run(app(by_load))
    until(lambda: len(running.replicas()) == 1, PATIENCE_S)
    enough = threading.Event()

    def crowd() -> None:
        while not enough.is_set():
            running.ask(max_tokens=16)

    threads = [threading.Thread(target=crowd) for _ in range(8)]
    for each in threads:
        each.start()
    try:
        until(lambda: len(running.replicas()) == 2, PATIENCE_S)
    finally:
        enough.set()
        for each in threads:
            each.join()
