"""Text as it streams: equal to decoding everything at once, never half a character, nothing of a stop string."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from hired_edge.errors import InputError
from hired_runtime.text import Detokenizer, StopStrings, TextStream
from tests.tiny.tokenizers import write_tokenizer

UNSEEN = 40  # ids beyond the tokenizer's, as the rows that pad a model's vocabulary


@pytest.fixture(scope="module", params=["llama", "llama-legacy", "qwen"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, request.param)
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def pieces(tokenizer: Tokenizer, ids: list[int], *, skip: bool = True) -> list[str]:
    stream = Detokenizer(tokenizer, skip_special_tokens=skip)
    return [*(stream.push(index) for index in ids), stream.flush()]


@settings(max_examples=150, deadline=None)
@given(data=st.data(), skip=st.booleans())
def test_any_ids_join_to_decode(tokenizer: Tokenizer, data: st.DataObject, skip: bool) -> None:
    bytes_and_words = st.one_of(st.integers(0, 300), st.integers(0, tokenizer.get_vocab_size() + UNSEEN))
    ids = data.draw(st.lists(bytes_and_words, max_size=40))
    assert "".join(pieces(tokenizer, ids, skip=skip)) == tokenizer.decode(ids, skip_special_tokens=skip)


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), max_size=30))
@example("ここは 🎉👩\u200d👩\u200d👧 é你好\n")
@example("  two  spaces ")
def test_no_half_characters(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    emitted = pieces(tokenizer, ids)
    assert "".join(emitted) == tokenizer.decode(ids)
    assert "\ufffd" not in "".join(emitted)


def test_words_come_at_once(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("the picture shows a clock on the table", add_special_tokens=False).ids
    emitted = pieces(tokenizer, ids)
    assert all(emitted[1:-1])
    assert emitted[-1] == ""


def test_unfinished_bytes_come_at_the_end(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("ab你", add_special_tokens=False).ids[:-1]
    emitted = pieces(tokenizer, ids)
    assert "\ufffd" not in "".join(emitted[:-1])
    assert emitted[-1].startswith("\ufffd")
    assert "".join(emitted) == tokenizer.decode(ids)


@pytest.mark.parametrize(
    ("text", "stops", "shown", "found"),
    [
        ("a cat.\nUSER: more", ["USER:"], "a cat.\n", "USER:"),
        ("a cat", [], "a cat", None),
        ("ababac", ["abac"], "ab", "abac"),
        ("abc", ["abcd", "b"], "a", "b"),
        ("abc", ["bc", "abc"], "", "abc"),
        ("ends with US", ["USER:"], "ends with US", None),
        ("aaa", ["aaaa", "b"], "aaa", None),
        ("é你好", ["你"], "é", "你"),
    ],
)
def test_stop_strings(text: str, stops: list[str], shown: str, found: str | None) -> None:
    for cut in range(len(text) + 1):
        stream = StopStrings(stops)
        assert stream.push(text[:cut]) + stream.push(text[cut:]) + stream.flush() == shown
        assert stream.found == found


words = st.text("ab", max_size=12)


@settings(max_examples=300, deadline=None)
@given(chunks=st.lists(words, max_size=6), stops=st.lists(words.filter(bool), max_size=3))
def test_stop_strings_do_not_depend_on_the_cut(chunks: list[str], stops: list[str]) -> None:
    text = "".join(chunks)
    stream = StopStrings(stops)
    shown = "".join([*map(stream.push, chunks), stream.flush()])
    ends = [(text.index(stop) + len(stop), text.index(stop), stop) for stop in stops if stop in text]
    assert shown == (text[: min(ends)[1]] if ends else text)
    assert stream.found == (min(ends)[2] if ends else None)


def test_held_back_no_longer_than_needed() -> None:
    stream = StopStrings(["USER:"])
    assert [stream.push(text) for text in ("x U", "SE", "A", "U", "SER: y", "z")] == ["x ", "", "USEA", "", "", ""]
    assert stream.found == "USER:"
    assert stream.flush() == ""


def test_empty_stop_string() -> None:
    with pytest.raises(InputError, match="empty stop string"):
        StopStrings(["a", ""])


def test_text_stream_stops_across_tokens(tokenizer: Tokenizer) -> None:
    text = "the picture shows 你 and a clock"
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    stream = TextStream(tokenizer, ["s 你 an"])
    shown = ""
    for index in ids:
        shown += stream.push(index)
        if stream.stopped:
            break
    assert stream.stopped
    assert shown + stream.flush() == "the picture show"
