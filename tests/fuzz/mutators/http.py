"""Requests as they stand on the wire: lines and headers are changed, bodies too, with their length mended mostly."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from tests.fuzz.mutators import json_text, raw

_body = json_text.of()
_PATHS = (
    *(b"/", b"/health", b"/ready", b"/metrics", b"/v1/models", b"/v1/models/cards", b"/v1/models/..%2f..%2fetc"),
    *(b"/v1/chat/completions", b"/api/settings", b"/api/pictures", b"/api/selections", b"/page/../../x", b"*"),
    *(
        b"/page/app.js",
        b"/page/%00",
        b"//x",
        b"http://a/b",
        b"/" + b"a" * 5000,
        b"/\xff",
        b"/?q=%zz",
        b"/page/%2e%2e/x",
    ),
)
_METHODS = (b"GET", b"POST", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE", b"CONNECT", b"PATCH", b"X" * 50, b"G\0T")
_HEADERS = (
    *(b"Host: localhost", b"Host: evil.example", b"Host:", b"Host: [::1]:99999999999", b"Host: [", b"Host: a:b:c"),
    *(b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: 99999999999999999999", b"Content-Length: 0x5"),
    *(
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Connection: close",
        b"Expect: 100-continue",
    ),
    *(
        b"Content-Type: image/png",
        b"Content-Type: text/plain",
        b"Content-Type:",
        b"Content-Type: application/json; x=y",
    ),
    *(
        b"Authorization: Bearer x",
        b"Authorization: \xff\xfe",
        b"Upgrade: websocket",
        b"Upgrade: h2c",
        b"X: " + b"y" * 9000,
    ),
    *(
        b"Range: bytes=0-1",
        b"Accept-Encoding: *;q=\0",
        b": empty",
        b"no colon",
        b" folded: x",
        b"Cookie: " + b"a=b;" * 500,
    ),
    *(b"Content-Encoding: gzip", b"Origin: null", b"Sec-Fetch-Site: cross-site", b"If-None-Match: *", b"A:b\rC:d"),
)


def request(path: bytes, body: bytes | None = None, *headers: bytes) -> bytes:
    """A good one; a POST where there is a body."""
    lines = [(b"GET " if body is None else b"POST ") + path + b" HTTP/1.1", b"Host: localhost", *headers]
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", b""]) + (body or b"")


def mutated(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    head, found, body = data.partition(b"\r\n\r\n")
    if not found or random.random() < 0.15:
        return raw.mutated(data, random, others)
    lines = head.split(b"\r\n")
    first, headers = lines[0].split(b" "), [line for line in lines[1:] if not line.startswith(b"Content-Length")]
    measured = len(headers) < len(lines) - 1
    if body and random.random() < 0.5:
        body = _body(body, random, ())
    for _ in range(random.choice((0, 1, 1, 2)) if body else random.choice((1, 2))):
        match random.randrange(9):
            case 0:
                first[0] = random.choice(_METHODS)
            case 1 | 2:
                first[min(1, len(first) - 1)] = random.choice(_PATHS)
            case 3:
                first = random.choice(([*first, b"x"], first[:-1] or [b""], [*first[:-1], b"HTTP/1.0"], [b"", *first]))
            case 4 if headers:
                del headers[random.randrange(len(headers))]
            case 5 if headers:
                at = random.randrange(len(headers))
                headers[at] = raw.mutated(headers[at], random, ())
            case 6:
                headers *= random.choice((2, 40))
            case 7:
                return request(b"/health") * random.choice((1, 20)) + data  # one after the other on a connection
            case _:
                headers.insert(random.randrange(len(headers) + 1), random.choice(_HEADERS))
    if measured:
        wrong = random.choice((1, -1, 10)) if random.random() < 0.1 else 0
        headers.append(b"Content-Length: %d" % (len(body) + wrong))
    if random.random() < 0.05:
        headers.append(b"Transfer-Encoding: chunked")
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    end = random.choice((b"\r\n",) * 9 + (b"\n",))
    return (end.join([b" ".join(first), *headers, b"", b""]) + body)[: raw.MOST_BYTES]
