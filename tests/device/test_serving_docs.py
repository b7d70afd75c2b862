"""What docs/serving.md and the README tell a reader to type, typed."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hired_runtime.serving import chat_request
from hired_runtime.serving.page_files import PAGE
from tests.tiny.processes import PATIENCE_S
from tests.tiny.served import Served, served

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as each:
        yield each


def blocks(name: str, language: str, word: str) -> list[str]:
    """Code of a page that holds a word. The tests of the installed wheel run in a copy without the pages."""
    page = ROOT / name
    if not page.is_file():
        assert not (ROOT / "hired_edge").is_dir()
        return []
    found = re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return [code for code in found if word in code]


def here(code: str, server: Served) -> str:
    """Of this server, and of the installed page's samples."""
    code = code.replace("http://127.0.0.1:8000", server.address)
    return code.replace("runtime/hired_runtime/serving/page", str(PAGE))


@pytest.mark.parametrize("page", ["docs/serving.md", "README.md"])
def test_curl(server: Served, page: str) -> None:
    for code in blocks(page, "sh", "curl"):
        command = "\n".join(line for line in code.splitlines() if not line.startswith("hired-edge serve"))
        result = subprocess.run(
            ["bash", "-c", here(command, server)], capture_output=True, text=True, timeout=PATIENCE_S
        )
        answer = json.loads(result.stdout)
        assert answer["choices"][0]["message"]["content"].strip() == "6"
        assert answer["hired_edge"]["visual"]["budget"] == 64


def test_python(server: Served, capsys: pytest.CaptureFixture[str]) -> None:
    for code in blocks("docs/serving.md", "python", "OpenAI"):
        exec(compile(here(code, server), "docs/serving.md", "exec"), {})
        text, usage = capsys.readouterr().out.strip().splitlines()
        assert text == "6"
        assert "total_tokens" in usage


def test_an_answer_is_as_shown(server: Served) -> None:
    for code in blocks("docs/serving.md", "json", "visual"):
        picture = (PAGE / "samples/scene-1.jpg").read_bytes()
        reply = server.chat(picture=picture, prompt="How many cards are there?", visual_tokens="20%")
        shown, real = json.loads(code), reply.json["hired_edge"]

        def keys(value: Any) -> Any:
            return {name: keys(each) for name, each in value.items()} if isinstance(value, dict) else None

        assert keys(shown) == keys(real)
        assert shown["visual"] == real["visual"]


def test_every_field_and_code_is_named() -> None:
    page = ROOT / "docs/serving.md"
    if not page.is_file():
        return
    text = page.read_text(encoding="utf-8")
    assert [name for name in (*chat_request._SUPPORTED, *chat_request._EXTENSIONS) if f"`{name}" not in text] == []
    folder = Path(chat_request.__file__).parent
    source = "".join(path.read_text() for path in folder.glob("*.py") if path.name != "looking.py")  # the page's own
    codes = set(re.findall(r'code="(\w+)"', source)) | set(re.findall(r'_unavailable\(\w+\(\w+\), "(\w+)"', source))
    assert len(codes) > 10
    assert sorted(code for code in codes if f"`{code}`" not in text) == []
