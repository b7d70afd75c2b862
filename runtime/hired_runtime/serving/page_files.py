"""The page's own files, read once into memory: nothing else can be asked for, and no path is ever made of a request.

A file's tag is made of its contents, so that a browser asks each time, is told "not modified", and has the new page at
once after an upgrade (wheels carry no times that a tag could be made of).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hired_runtime.serving.api_errors import ApiError

PAGE = Path(__file__).parent / "page"
SAMPLES = "samples/samples.json"

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
}


class File(NamedTuple):
    content: bytes
    media_type: str
    tag: str


def read_files(folder: Path = PAGE) -> dict[str, File]:
    """Every file of the page by its path below the folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in _TYPES and path.is_file():
            content = path.read_bytes()
            tag = f'"{hashlib.sha256(content).hexdigest()[:24]}"'
            found[path.relative_to(folder).as_posix()] = File(content, _TYPES[path.suffix], tag)
    return found


def samples(files: dict[str, File]) -> list[dict[str, Any]]:
    """The sample pictures: {"file", "words", "questions"} each; `python -m demo.screenshots --samples` writes them."""
    listed = json.loads(files[SAMPLES].content)
    return [{**each, "file": f"page/samples/{each['file']}"} for each in listed]


def page_routes(files: dict[str, File]) -> list[Route]:
    """`/` and `/page/...`."""

    async def file(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in files:
            raise ApiError(404, "the page has no such file", code="not_found")
        found = files[name]
        headers = {"ETag": found.tag, "Cache-Control": "no-cache"}
        known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
        if found.tag in known:
            return Response(None, 304, headers)
        return Response(found.content, 200, headers, media_type=found.media_type)

    return [Route("/", file), Route("/page/{name:path}", file)]
