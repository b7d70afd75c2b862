"""Requests that the device's commands must refuse: one line, status 2; also what the Python API raises."""

from __future__ import annotations

import dataclasses
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hired_runtime
from hired_edge.budget import parse_budget
from hired_edge.bundle import read_manifest, write_manifest
from hired_edge.errors import InputError, LimitError
from hired_edge.limits import derive_limits
from hired_runtime.pipeline import Request
from tests.tiny.commands import Capture, accepted, refused

BUNDLE = Path(__file__).parents[1] / "golden/bundle"
PROMPT = ("--prompt", "What is it?", "--max-new-tokens", "2")


# Pictures.


def png(width: int, height: int) -> bytes:
    """A PNG of one row of zeros, whatever its header promises."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1 + width))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + rows


def cut(picture: Path) -> bytes:
    return picture.read_bytes()[:2000]


PICTURES: dict[str, tuple[bytes | Callable[[Path], bytes], str]] = {
    "empty.jpg": (b"", "is empty (0 bytes)"),
    "cut.png": (cut, "is truncated or damaged"),
    "text.png": (b"this is no picture", "is not a picture that can be read"),
    "bomb.png": (png(60_000, 60_000), "is too large"),
    "long.png": (png(1, 100_000), "1x100000"),
    "zero.png": (png(0, 5), ""),
    "page.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not a picture that can be read"),
}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("command", ["run", "show"])
def test_a_file_that_is_no_picture(name: str, command: str, picture: Path, tmp_path: Path, capsys: Capture) -> None:
    content, message = PICTURES[name]
    path = tmp_path / name
    path.write_bytes(content(picture) if callable(content) else content)
    rest = PROMPT if command == "run" else ("-o", tmp_path / "kept.png")
    line = refused(capsys, command, BUNDLE, "--image", path, *rest)
    assert name in line
    assert message in line
    assert not (tmp_path / "kept.png").exists()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("nothing.jpg", "nothing.jpg does not exist"),
        ("", "the empty path"),
        (".", ". is a directory"),
        ("/dev/null", "/dev/null is not a regular file"),
        ("https://example.org/cat.jpg", "the address https://example.org/cat.jpg; expected a file on this machine"),
        ("data:image/png;base64,AAAA", "the address data:image/png"),
        ("n" * 5000, "cannot be opened (File name too long)"),
        ("a\nb.jpg", "a b.jpg does not exist"),
    ],
)
def test_a_path_that_leads_to_no_picture(image: str, message: str, capsys: Capture) -> None:
    assert message in refused(capsys, "run", BUNDLE, "--image", image, *PROMPT)


# Requests.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prompt", "why " * 500], "text tokens asked for; expected at most 128"),
        (["--prompt", "half \ud800"], "lone surrogate"),
        (["--visual-tokens", "673"], "673 visual tokens asked for; expected at most 672"),
        (["--visual-tokens=-5"], "a visual-token budget of '-5'"),
        (["--visual-tokens", "101%"], "a visual-token budget of '101%'"),
        (["--visual-tokens", "many"], "a visual-token budget of 'many'"),
        (["--visual-tokens", ""], "a visual-token budget of ''"),
        (["--visual-tokens", "3", "--newlines", "all-rows"], 'with newline policy "all-rows"'),
        (["--max-new-tokens", "49"], "49 new tokens asked for; expected at most 48"),
        (["--max-new-tokens", "0"], "--max-new-tokens 0; expected 1 or more"),
        (["--max-new-tokens", "-1"], "--max-new-tokens -1; expected 1 or more"),
        (["--policy", "full", "--visual-tokens", "20%"], "policy 'full' with a budget of 20%; expected one of the two"),
        (["--policy", "full", "--visual-tokens", "64"], "policy 'full' with a budget of 64; expected one of the two"),
        (["--alpha", "1.1"], "alpha of 1.1; expected a number from 0 to 1"),
        (["--alpha=-0.1"], "alpha of -0.1"),
        (["--alpha", "nan"], "alpha of nan"),
        (["--alpha", "half"], "alpha of half"),
        (["--temperature=-1"], "temperature -1.0"),
        (["--temperature", "nan"], "temperature nan"),
        (["--temperature", "inf"], "temperature inf"),
        (["--top-k", "-1"], "top-k -1"),
        (["--top-p", "0"], "top-p 0.0"),
        (["--top-p", "1.5"], "top-p 1.5"),
        (["--seed", "-1"], "seed -1"),
        (["--stop", ""], "an empty stop string"),
        (["--threads", "0"], "--threads 0"),
    ],
)
def test_a_request_that_cannot_be_answered(options: list[str], message: str, picture: Path, capsys: Capture) -> None:
    assert message in refused(capsys, "run", BUNDLE, "--image", picture, *PROMPT, *options)


def test_too_many_pictures(picture: Path, capsys: Capture) -> None:
    line = refused(capsys, "run", BUNDLE, *PROMPT, *["--image", picture] * 3)
    assert "3 pictures asked for; expected at most 2" in line


@pytest.mark.parametrize(
    "options",
    [
        ["--policy", "nonsense"],
        ["--newlines", "nonsense"],
        ["--seed", "x"],
        ["--max-new-tokens", "1.5"],
        ["--nonsense"],
    ],
)
def test_a_word_that_the_command_line_does_not_know(options: list[str], picture: Path, capsys: Capture) -> None:
    line = refused(capsys, "run", BUNDLE, "--image", picture, *PROMPT, *options)
    assert options[0] in line
    assert line.endswith("see hired-edge run --help")


@pytest.mark.parametrize("options", [["--alpha", "2"], ["--policy", "full", "--visual-tokens", "20%"]])
def test_a_bad_request_is_refused_before_a_bundle_is_opened(
    options: list[str], picture: Path, tmp_path: Path, capsys: Capture
) -> None:
    nowhere = tmp_path / "nowhere"
    for command, rest in (("run", PROMPT), ("show", ("-o", tmp_path / "kept.png"))):
        assert "does not exist" not in refused(capsys, command, nowhere, "--image", picture, *rest, *options)


def test_the_full_policy_on_a_bundle_that_was_made_for_less(bundle: Path, picture: Path, capsys: Capture) -> None:
    manifest = read_manifest(bundle)
    limits = derive_limits(manifest.vision.tiling, [parse_budget("20%")], text_tokens=64, new_tokens=32)
    write_manifest(bundle, dataclasses.replace(manifest, limits=limits))
    line = refused(capsys, "run", bundle, "--image", picture, *PROMPT, "--policy", "full")
    assert f"visual tokens asked for; expected at most {limits.visual_tokens}" in line
    line = refused(capsys, "run", bundle, "--image", picture, *PROMPT, "--visual-tokens", "40%")
    assert f"visual tokens asked for; expected at most {limits.visual_tokens}" in line
    accepted(capsys, "run", bundle, "--image", picture, *PROMPT)


def test_the_full_policy_with_all_tokens_is_no_contradiction(picture: Path, capsys: Capture) -> None:
    accepted(capsys, "run", BUNDLE, "--image", picture, *PROMPT, "--policy", "full", "--visual-tokens", "100%")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens 0; expected 1 or more"),
        ({"max_new_tokens": -3}, "max_new_tokens -3"),
        ({"alpha": 1.5}, "alpha of 1.5"),
        ({"visual_tokens": "many"}, "'many'"),
        ({"visual_tokens": -1}, "'-1'"),
        ({"policy": "full", "visual_tokens": 10}, "policy 'full' with a budget of 10"),
    ],
)
def test_a_request_is_checked_as_it_is_made(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        Request((), **options)


def test_a_model_answers_after_it_has_refused(picture: Path) -> None:
    model = hired_runtime.open(BUNDLE, visual_tokens="20%", images=1)
    expected = model.ask("What is it?", [picture], max_new_tokens=4).tokens
    with pytest.raises(LimitError, match="visual tokens asked for"):
        model.ask("What is it?", [picture], visual_tokens="40%")
    with pytest.raises(LimitError, match="text tokens asked for"):
        model.ask("why " * 500, [picture])
    with pytest.raises(InputError, match="selection policy 'none'"):
        model.ask("What is it?", [picture], policy="none")
    with pytest.raises(InputError, match="does not exist"):
        model.ask("What is it?", ["nothing.png"])
    assert model.ask("What is it?", [picture], max_new_tokens=4).tokens == expected
