"""The device's commands on the committed bundle: what they print and write, and how they end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import hired_runtime
from hired_edge import cli
from hired_edge.bundle import read_manifest
from hired_edge.policies import POLICIES
from tests.tiny.children import largest_file
from tests.tiny.commands import Capture, accepted, refused

BUNDLE = Path(__file__).parents[1] / "golden/bundle"
PROMPT = ("--prompt", "What is shown in this picture?")
VISUAL = ["total", "eligible", "budget", "kept", "newlines", "grid", "per_partition", "indices"]
TIMINGS = ["preprocess", "vision", "select", "prefill", "decode", "ttft", "total"]
REPORT = ["text", "tokens", "visual", "limits", "timings_ms", "decode_tokens_per_s", "peak_memory_mb"]


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wider than high, and not a multiple of anything."""
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    noise = np.random.default_rng(0).integers(0, 256, (97, 131, 3), np.uint8)
    Image.fromarray(noise).resize((393, 291)).save(path)
    return path


def answer(capsys: Capture, picture: Path, *options: object) -> dict[str, Any]:
    """The object on the last line of `run --json`."""
    return json.loads(accepted(capsys, "run", BUNDLE, "--image", picture, *PROMPT, *options, "--json").splitlines()[-1])


@pytest.mark.parametrize(
    ("budget", "newlines"),
    [(budget, newlines) for budget in ("0", "1", "37", "20%", "100%") for newlines in ("none", "kept-rows")]
    + [(budget, "all-rows") for budget in ("37", "20%", "100%")],
)
def test_json_has_the_documented_fields_and_consistent_numbers(
    budget: str, newlines: str, picture: Path, capsys: Capture
) -> None:
    report = answer(capsys, picture, "--visual-tokens", budget, "--newlines", newlines, "--max-new-tokens", 5)
    assert list(report) == REPORT
    assert list(report["visual"]) == VISUAL
    assert list(report["timings_ms"]) == TIMINGS
    visual, patches = report["visual"], read_manifest(BUNDLE).vision.tiling.patches_per_tile
    tiles = 1 + visual["grid"][0] * visual["grid"][1]
    assert len(visual["per_partition"]) == len(visual["indices"]) == tiles
    assert sum(visual["per_partition"]) == visual["kept"] <= visual["eligible"] <= tiles * patches
    assert visual["kept"] + visual["newlines"] <= visual["budget"] <= report["limits"]["visual_tokens"]
    granted = {"20%": tiles * patches // 5, "100%": visual["total"]}
    assert visual["budget"] == (granted[budget] if budget in granted else int(budget))
    if budget == "100%":
        assert visual["kept"] + visual["newlines"] == visual["total"]
    for count, indices in zip(visual["per_partition"], visual["indices"], strict=True):
        assert indices == sorted(set(indices))
        assert len(indices) == count
        assert all(0 <= index < patches for index in indices)
    assert 1 <= len(report["tokens"]) <= 5
    times = report["timings_ms"]
    assert all(time >= 0 for time in times.values())
    assert sum(times[stage] for stage in TIMINGS[:4]) <= times["ttft"] + 0.01 <= times["total"] + 0.01
    assert report["peak_memory_mb"] > 10
    steps = len(report["tokens"]) - 1
    assert report["decode_tokens_per_s"] == pytest.approx(1000 * steps / times["decode"], rel=0.01)


def test_json_agrees_with_the_api(picture: Path, capsys: Capture) -> None:
    report = answer(capsys, picture, "--visual-tokens", "20%", "--max-new-tokens", 8)
    model = hired_runtime.open(BUNDLE, visual_tokens="20%", images=1)
    expected = model.ask(PROMPT[1], [picture], max_new_tokens=8)
    assert (report["text"], report["tokens"]) == (expected.text, expected.tokens)
    assert report["limits"]["formula"] == model.limits.formula
    assert report["visual"]["indices"] == [indices.tolist() for indices in expected.selections[0].indices]


def test_two_pictures_have_two_reports(picture: Path, capsys: Capture) -> None:
    report = answer(capsys, picture, "--image", picture, "--visual-tokens", "41", "--max-new-tokens", 1)
    first, second = report["visual"]
    assert first["budget"] + second["budget"] == 41
    assert first["grid"] == second["grid"]


def test_no_picture_is_a_question_like_any_other(capsys: Capture) -> None:
    out = accepted(capsys, "run", BUNDLE, *PROMPT, "--max-new-tokens", 3, "--json")
    report = json.loads(out)
    assert list(report) == REPORT
    assert report["visual"] == []
    assert len(report["tokens"]) == 3


def test_the_text_is_the_same_plain_streamed_and_in_json(picture: Path, capsys: Capture) -> None:
    arguments = ("run", BUNDLE, "--image", picture, *PROMPT, "--max-new-tokens", 24)
    plain = accepted(capsys, *arguments)
    assert accepted(capsys, *arguments, "--stream") == plain
    both = accepted(capsys, *arguments, "--stream", "--json")
    report = json.loads(both.splitlines()[-1])
    assert both.startswith(plain)
    assert plain == report["text"] + "\n"


def test_a_summary_for_people_goes_to_stderr(picture: Path, capsys: Capture) -> None:
    assert cli.main(["run", str(BUNDLE), "--image", str(picture), *PROMPT, "--max-new-tokens", "2"]) == 0
    captured = capsys.readouterr()
    assert "visual tokens (hired, " in captured.err
    assert "prefill" in captured.err
    answer(capsys, picture, "--max-new-tokens", 2)
    assert capsys.readouterr().err == ""


def test_sampling_is_repeatable(picture: Path, capsys: Capture) -> None:
    def tokens(*options: object) -> list[int]:
        return answer(capsys, picture, "--max-new-tokens", 24, *options)["tokens"]

    warm = ("--temperature", 1.5, "--top-k", 200, "--top-p", 0.99)
    assert tokens(*warm, "--seed", 3) == tokens(*warm, "--seed", 3)
    assert tokens(*warm, "--seed", 3) != tokens(*warm, "--seed", 4)
    greedy = tokens()
    assert greedy == tokens("--seed", 7) == tokens("--temperature", 2, "--top-k", 1)


def test_a_stop_string_ends_the_answer(picture: Path, capsys: Capture) -> None:
    text = answer(capsys, picture, "--max-new-tokens", 24)["text"]
    stop = next(character for character in text[1:] if character.isalpha())
    assert answer(capsys, picture, "--max-new-tokens", 24, "--stop", stop)["text"] == text[: text.index(stop)]


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_every_policy_answers(policy: str, picture: Path, capsys: Capture) -> None:
    report = answer(capsys, picture, "--policy", policy, "--alpha", 0.3, "--max-new-tokens", 1)
    assert report["visual"]["kept"] > 0


def test_show_writes_a_picture(picture: Path, tmp_path: Path, capsys: Capture) -> None:
    output = tmp_path / "kept.png"
    out = accepted(capsys, "show", BUNDLE, "--image", picture, "-o", output, "--visual-tokens", "20%")
    assert out.startswith(f"{output}: ")
    with Image.open(output) as drawn:
        assert drawn.format == "PNG"
        drawn.load()
    assert list(tmp_path.iterdir()) == [output]
    kept, eligible = (int(word) for word in out.split() if word.isdecimal())
    visual = answer(capsys, picture, "--visual-tokens", "20%", "--max-new-tokens", 1)["visual"]
    assert (kept, eligible) == (visual["kept"], visual["eligible"])


@pytest.mark.parametrize("name", ["nowhere/kept.png", "kept", "kept.psd", "kept.nonsense", "", ".", "k" * 300 + ".png"])
def test_show_where_nothing_can_be_written(name: str, picture: Path, tmp_path: Path, capsys: Capture) -> None:
    output = tmp_path / name if name else ""
    assert "cannot be written (" in refused(capsys, "show", BUNDLE, "--image", picture, "-o", output)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_an_older_drawing_alone(picture: Path, tmp_path: Path, capsys: Capture) -> None:
    output = tmp_path / "kept.png"
    output.write_bytes(b"older")
    with largest_file(20_000):
        line = refused(capsys, "show", BUNDLE, "--image", picture, "-o", output)
    assert "kept.png cannot be written (File too large)" in line
    assert output.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [output]


def test_inspect(capsys: Capture) -> None:
    manifest = read_manifest(BUNDLE)
    page = accepted(capsys, "inspect", BUNDLE)
    tokens = f"{manifest.vision.tiling.patches_per_tile} visual tokens a tile"  # each of which may be several patches
    for fact in (manifest.family, manifest.checkpoint, tokens, manifest.limits.formula, "parity", "cache"):
        assert fact in page
    report = json.loads(accepted(capsys, "inspect", BUNDLE, "--json"))
    assert report == json.loads((BUNDLE / "manifest.json").read_text())
    assert report["memory"]["kv_cache_formula"].endswith(f" = {report['memory']['kv_cache']}")


def test_verify_replays_the_golden_inputs(capsys: Capture) -> None:
    lines = accepted(capsys, "verify", BUNDLE).splitlines()
    assert lines[0] == f"files   {len(read_manifest(BUNDLE).files)} as in the manifest"
    assert [line.split(":")[0] for line in lines[1:-1]] == [
        "golden  vision allocation_attention",
        "golden  vision image_features",
        "golden  vision selection_attention",
        "golden  language logits",
    ]
    assert lines[-1].startswith("engine  onnxruntime ")
    assert accepted(capsys, "verify", BUNDLE, "--files-only").splitlines() == lines[:1]
