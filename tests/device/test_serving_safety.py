"""Who may ask: the key, the names that a page elsewhere cannot use, types that a browser asks about first, headers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import openai
import pytest

from hired_edge.errors import InputError
from hired_runtime.commands.serve import KEY_VARIABLE, api_key
from hired_runtime.serving.guard import is_loopback
from hired_runtime.serving.server import address_of, bound_socket
from hired_runtime.serving.settings import ServerSettings
from tests.tiny.served import NAME, Served, head, read_reply, served, until

KEY = "a key with words"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as each:
        yield each


@pytest.fixture(scope="module")
def locked() -> Iterator[Served]:
    with served(api_key=KEY) as each:
        yield each


def test_the_key_opens(locked: Served) -> None:
    client = locked.openai(api_key=KEY)
    answer = client.chat.completions.create(model=NAME, messages=[{"role": "user", "content": "Why?"}])
    assert answer.choices[0].finish_reason == "stop"
    assert locked.get("/metrics", {"authorization": f"bearer {KEY}"}).status == 200


@pytest.mark.parametrize(
    "path", ["/v1/models", f"/v1/models/{NAME}", "/metrics", "/api/settings", "/v1/none", "/Page/"]
)
@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", f"Basic {KEY}", KEY, "Bearer \u00fc\u00ff"],
)
def test_nothing_else_does(locked: Served, path: str, authorization: str | None) -> None:
    reply = locked.get(path, {} if authorization is None else {"Authorization": authorization.encode("latin-1")})
    assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
    assert reply.headers["www-authenticate"] == "Bearer"
    assert KEY not in reply.body.decode()


def test_a_wrong_key_is_the_clients_own_error(locked: Served) -> None:
    with pytest.raises(openai.AuthenticationError):
        locked.openai(api_key="wrong").models.list()


def test_a_body_without_the_key_is_not_read(locked: Served) -> None:
    with locked.connection() as raw:
        raw.sendall(head(10**6))
        assert read_reply(raw).status == 401


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/page/"])
def test_what_is_open_shows_nothing(locked: Served, path: str) -> None:
    assert locked.get(path).status in (200, 404)
    assert locked.exchange("POST", path, b"{}", {"Content-Type": "application/json"}).status == 401


def test_with_a_key_any_name_is_good(locked: Served) -> None:
    assert locked.get("/health", {"Host": "board.example"}).status == 200


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8000", "127.0.0.1:1", "127.9.9.9", "[::1]:8000", "[::1]", "a.localhost", "LOCALHOST."],
)
def test_loopback_names_are_taken(server: Served, host: str) -> None:
    assert server.get("/health", {"Host": host}).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "192.168.1.1",
        "0.0.0.0",
        "",
        "a@localhost",
        "localhost:80:80",
        "[::2]",
        "evil.example:8000",
        "localhost/",
    ],
)
def test_any_other_name_is_refused_without_a_key(server: Served, host: str) -> None:
    for path in ("/health", "/v1/models", "/"):
        reply = server.get(path, {"Host": host})
        assert (reply.status, reply.error["code"]) == (403, "host_not_allowed")


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "image/png"]
)
def test_what_a_page_elsewhere_could_send_unasked_is_refused(server: Served, kind: str) -> None:
    reply = server.post(b"{}", {"Content-Type": kind})
    assert (reply.status, reply.error["code"]) == (415, "unsupported_media_type")
    assert not [name for name in reply.headers if name.startswith("access-control")]


def test_json_may_name_its_characters(server: Served) -> None:
    body = {"model": NAME, "messages": [{"role": "user", "content": "Why?"}]}
    assert server.post(body, {"Content-Type": "Application/JSON; charset=utf-8"}).status == 200


def test_a_browser_that_asks_first_is_not_encouraged(server: Served) -> None:
    asking = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    reply = server.exchange("OPTIONS", "/v1/chat/completions", None, asking)
    assert reply.status == 405
    assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/", "/v1/models", "/health", "/none", "/api/settings", "/metrics"])
def test_every_answer_has_safe_headers(server: Served, path: str) -> None:
    headers = server.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert path in ("/", "/none") or headers["cache-control"] == "no-store"
    assert "server" not in headers


def test_binding_to_a_network_needs_a_key() -> None:
    for host in ("0.0.0.0", "::"):
        with pytest.raises(InputError, match="without a key"):
            bound_socket(host, 0, key=False).close()
    with bound_socket("0.0.0.0", 0, key=True) as listening:
        assert address_of(listening).startswith("http://127.0.0.1:")


def test_loopback_needs_none() -> None:
    for host in ("127.0.0.1", "localhost"):
        with bound_socket(host, 0, key=False) as listening:
            assert listening.getsockname()[1] > 0


def test_an_address_that_cannot_be_had_is_one_line() -> None:
    with bound_socket("127.0.0.1", 0, key=False) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        for host, each in (
            ("127.0.0.1", port),
            ("no.such.host.invalid", 0),
            ("192.0.2.1", 0),
            ("127.0.0.1", 70_000),
            ("", 0),
        ):
            with pytest.raises(InputError, match="cannot be used") as refusal:
                bound_socket(host, each, key=True).close()
            assert "\n" not in str(refusal.value)


def test_a_port_is_taken_before_anybody_serves_on_it() -> None:
    with bound_socket("127.0.0.1", 0, key=False) as first:
        port = first.getsockname()[1]
        with pytest.raises(InputError, match="cannot be used"):
            bound_socket("127.0.0.1", port, key=False).close()
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass  # early clients wait


def test_a_port_can_be_had_again_right_after_a_stop() -> None:
    with bound_socket("127.0.0.1", 0, key=False) as first:
        port = first.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            first.accept()[0].close()  # the server ends it, so that its end stays in TIME_WAIT
            assert client.recv(1) == b""
    bound_socket("127.0.0.1", port, key=False).close()


def test_ipv6_is_written_in_brackets() -> None:
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        assert address_of(probe).startswith("http://[::1]:")


@pytest.mark.parametrize(("host", "expected"), [("::1", True), ("[::1]", True), ("10.0.0.1", False), ("x", False)])
def test_loopback_is_known_by_its_name(host: str, expected: bool) -> None:
    assert is_loopback(host) == expected


def test_the_key_comes_from_the_environment_or_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert api_key(None) is None
    monkeypatch.setenv(KEY_VARIABLE, "from the environment")
    assert (api_key(None), api_key("given")) == ("from the environment", "given")
    for bad in ("", " ", "a\n", "\u00e9"):
        with pytest.raises(InputError):
            api_key(bad)


def test_metrics_count_what_a_connection_refuses_by_itself() -> None:
    with served(header_timeout_s=0.2, body_timeout_s=0.2, max_connections=4) as server:
        codes = []
        for sent, ends in (
            (b"GET\r\n\r\n", False),
            (b"POST /v1", True),
            (b"POST /v1", False),
            (head(9) + b"{", True),
            (head(9) + b"{", False),
        ):
            with server.connection() as raw:
                raw.sendall(sent)
                if ends:
                    raw.shutdown(socket.SHUT_WR)
                codes.append(read_reply(raw).error["code"])
        with ExitStack() as stack:
            raws = [stack.enter_context(server.connection()) for _ in range(5)]
            codes.append(read_reply(raws[4]).error["code"])
        until(lambda: server.get("/health").status == 200)  # their places are free again
        numbers = metrics_of(server)
    assert codes == [
        "invalid_http",
        "incomplete_request",
        "timeout",
        "incomplete_request",
        "timeout",
        "too_many_connections",
    ]
    expected = {
        'hired_edge_refused_total{reason="invalid_http"}': 1,
        'hired_edge_refused_total{reason="incomplete_request"}': 2,
        'hired_edge_refused_total{reason="timeout"}': 2,
        'hired_edge_refused_total{reason="too_many_connections"}': 1,
        'hired_edge_requests_total{path="other",status="408"}': 1,
        'hired_edge_requests_total{path="other",status="400"}': 2,
        'hired_edge_requests_total{path="/v1/chat/completions",status="400"}': 1,
        'hired_edge_requests_total{path="/v1/chat/completions",status="408"}': 1,
    }
    assert {name: numbers[name] for name in expected} == expected


def metrics_of(server: Served) -> dict[str, float]:
    lines = server.get("/metrics").body.decode().splitlines()
    named = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in named}


def test_the_key_is_in_no_representation() -> None:
    assert KEY not in repr(ServerSettings(NAME, api_key=KEY))


def test_metrics_count_what_happened(tmp_path: Path) -> None:
    with served() as server:
        server.works()
        server.works()
        server.chat(n=2)
        server.get("/" + "x" * 30)
        numbers = metrics_of(server)
    expected = {
        'hired_edge_requests_total{path="/v1/chat/completions",status="200"}': 2,
        'hired_edge_requests_total{path="/v1/chat/completions",status="400"}': 1,
        'hired_edge_requests_total{path="other",status="404"}': 1,
        'hired_edge_refused_total{reason="unsupported_parameter"}': 1,
        'hired_edge_refused_total{reason="not_found"}': 1,
        "hired_edge_completion_tokens_total": 2,
        "hired_edge_visual_tokens_total": 672,
        "hired_edge_requests_running": 0,
        "hired_edge_requests_waiting": 0,
        "hired_edge_request_seconds_count": 2,
        "hired_edge_time_to_first_token_seconds_count": 2,
    }
    assert {name: numbers[name] for name in expected} == expected
    assert numbers["hired_edge_prompt_tokens_total"] > 0
    assert numbers["hired_edge_cached_tokens_total"] > 0  # the second asked the same
    assert numbers["hired_edge_cache_bytes"] > 0
    assert not any("x" * 30 in name for name in numbers)
