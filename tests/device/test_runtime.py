"""The Python API on the committed bundle: what it answers, what it leaves behind, what it refuses to load."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest

import hired_runtime
from hired_edge.bundle import Bundle
from hired_edge.errors import BundleError, InputError, LimitError
from hired_edge.plan import kv_cache_bytes
from hired_runtime import golden, ort

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = [ROOT / "tests/golden/bundle", ROOT / "tests/golden/bundle-int4"]
PICTURE = ROOT / "demo/pictures/coffee.jpg"


@pytest.fixture(scope="module")
def model() -> hired_runtime.Model:
    return hired_runtime.open(BUNDLES[0], images=1)


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda folder: folder.name)
def test_golden_outputs_replay_on_this_engine(folder: Path) -> None:
    bundle = Bundle.open(folder)
    results = list(golden.replay(bundle, ort.load(bundle, golden.limits(bundle.manifest))))
    assert {result.piece.split()[0] for result in results} == {"vision", "language"}


def test_golden_tiles_replay_one_by_one_where_a_family_has_no_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(BUNDLES[0])
    one = replace(golden.limits(bundle.manifest), tiles=1)
    monkeypatch.setattr(golden, "limits", lambda _: one)
    assert len([each for each in golden.replay(bundle, ort.load(bundle, one)) if "vision" in each.piece]) == 3


def test_a_streamed_answer_is_the_answer(model: hired_runtime.Model) -> None:
    whole = model.ask("What is it?", [PICTURE], max_new_tokens=20)
    generation = model.stream("What is it?", [PICTURE], max_new_tokens=20)
    assert "".join(generation) == whole.text
    assert generation.answer.tokens == whole.tokens


def test_an_answer_does_not_depend_on_what_was_asked_before(model: hired_runtime.Model) -> None:
    first = model.ask("What is it?", [PICTURE], visual_tokens="20%", max_new_tokens=12)
    model.ask("And a longer question, with everything kept?", [PICTURE], visual_tokens="100%", max_new_tokens=30)
    abandoned = iter(model.stream("What is it?", [PICTURE], max_new_tokens=30))
    next(abandoned)
    del abandoned
    again = model.ask("What is it?", [PICTURE], visual_tokens="20%", max_new_tokens=12)
    assert again.tokens == first.tokens


def test_threads_that_share_a_model_get_their_own_answers(model: hired_runtime.Model) -> None:
    questions = [f"Question {i}?" for i in range(4)]

    def ask(question: str) -> list[int]:
        return model.ask(question, [PICTURE], visual_tokens="40%", max_new_tokens=16).tokens

    alone = [ask(question) for question in questions]
    assert len({tuple(tokens) for tokens in alone}) > 1
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, questions * 3)) == alone * 3


def test_a_stream_that_is_overtaken_ends_in_an_error_and_not_in_the_other_answer(model: hired_runtime.Model) -> None:
    expected = model.ask("Another question?", [PICTURE], max_new_tokens=8).tokens
    stream = model.stream("What is it?", [PICTURE], max_new_tokens=30)
    next(stream)
    assert model.ask("Another question?", [PICTURE], max_new_tokens=8).tokens == expected
    with pytest.raises(InputError, match="one request at a time"):
        next(stream)
    with pytest.raises(InputError):
        _ = stream.answer


def test_a_generation_that_was_refused_has_no_answer(model: hired_runtime.Model) -> None:
    generation = model.stream("why " * 500, [PICTURE])
    with pytest.raises(LimitError):
        next(generation)
    with pytest.raises(InputError, match="has no answer"):
        _ = generation.answer


def test_a_stop_string_found_at_the_very_end_is_the_reason(model: hired_runtime.Model) -> None:
    text = model.ask("What is it?", [PICTURE], max_new_tokens=12).text
    stopped = model.ask("What is it?", [PICTURE], max_new_tokens=12, stop=[text[-1]])
    assert stopped.finish_reason == "stop"
    assert text[-1] not in stopped.text


def test_a_conversation_without_a_picture_is_answered(model: hired_runtime.Model) -> None:
    messages = [
        {"role": "user", "content": "Say something."},
        {"role": "assistant", "content": "Something."},
        {"role": "user", "content": "Once more."},
    ]
    assert len(model.chat(messages, max_new_tokens=5).tokens) == 5


def test_a_seed_gives_the_same_tokens_and_another_does_not(model: hired_runtime.Model) -> None:
    def tokens(seed: int) -> list[int]:
        sampling = hired_runtime.SamplingOptions(temperature=1.5, seed=seed)
        return model.ask("What is it?", [PICTURE], sampling=sampling, max_new_tokens=12).tokens

    assert tokens(1) == tokens(1)
    assert tokens(1) != tokens(2)


def test_a_smaller_budget_opens_a_smaller_cache() -> None:
    sizes = []
    for budget in ("20%", "40%", "100%"):
        model = hired_runtime.open(BUNDLES[0], visual_tokens=budget, images=1)
        text, limits = model.pipeline.manifest.text, model.limits
        assert model.cache_bytes == kv_cache_bytes(text, limits.max_sequence_length, 1)
        assert model.cache_bytes == model.pipeline.backend.language.cache.nbytes  # type: ignore[attr-defined]
        sizes.append(model.cache_bytes)
    assert sizes == sorted(set(sizes))


def test_memory_does_not_grow_over_requests(model: hired_runtime.Model) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def ask(count: int) -> None:
        for i in range(count):
            model.ask(f"Question {i}?", [PICTURE], visual_tokens=f"{20 + i % 80}%", max_new_tokens=8)

    ask(20)  # whatever is allocated once is allocated now
    before = resident()
    ask(60)
    assert resident() - before < 4 * 2**20


def test_the_readme_example_runs(model: hired_runtime.Model, capsys: pytest.CaptureFixture[str]) -> None:
    readme = ROOT / "README.md"
    if not readme.is_file():  # the tests of the installed wheel run in a copy without it
        assert not (ROOT / "hired_edge").is_dir()
        return
    (code,) = re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)
    code = code.replace('"bundle"', f'"{BUNDLES[0]}"').replace("table.jpg", str(PICTURE))
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_a_sliding_window_is_refused_on_a_faked_older_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime 1.23 counts a window otherwise than transformers (docs/log.md)."""
    bundle = Bundle.open(BUNDLES[0])
    text = replace(bundle.manifest.text, sliding_window=100)
    windowed = replace(bundle, manifest=replace(bundle.manifest, text=text))
    monkeypatch.setattr(onnxruntime, "__version__", "1.23.2")
    with pytest.raises(BundleError, match=r"sliding window of 100 on onnxruntime 1\.23\.2; expected onnxruntime 1\.24"):
        ort.load(windowed, golden.limits(windowed.manifest))
    monkeypatch.setattr(onnxruntime, "__version__", "1.24.1")
    ort.load(windowed, golden.limits(windowed.manifest))


def test_threads_do_not_change_the_answer() -> None:
    def tokens(threads: int) -> list[int]:
        return hired_runtime.open(BUNDLES[0], threads=threads).ask("What is it?", [PICTURE], max_new_tokens=12).tokens

    assert tokens(1) == tokens(2)
