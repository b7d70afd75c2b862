"""Prompts: a person's text is data, pictures go where they belong, and what cannot be used is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from hired_edge.errors import CheckpointError, InputError
from hired_runtime.prompt import PromptTemplate, question
from tests.tiny.tokenizers import Style, write_tokenizer

LLAMA_SPECIAL = ["<unk>", "<s>", "</s>", "<image>", "<pad>"]
QWEN_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>"]
PLAIN = "{% for m in messages %}{% for p in m['content'] %}{{ p.text or '<image>' }}{% endfor %}{% endfor %}"
TRIMMED = (
    "{% for m in messages %}[{% for p in m['content'] %}"
    "{{ '<image>' if p.type == 'image' else p.text | trim }}{% endfor %}]{% endfor %}"
)
# What templates on the Hub use beyond plain jinja2.
FEATURES = (
    "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}\n"
    "    {% generation %}{% for p in m.content if p.type == 'image' %}{{ '<image>' }}{% endfor %}\n"
    "    {% endgeneration %}{{ m.content | tojson }}\n"
    "{% endfor %}{{ strftime_now('%Y') | length }}{{ eos_token }}"
)
NO_SYSTEM_PICTURES = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ m.content[0].text }}{% else %}"
    "{% for p in m.content %}{{ p.text or '<image>' }}{% endfor %}{% endif %}{% endfor %}"
)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., PromptTemplate]:
    def build(style: Style = "llama", template: str | None = None) -> PromptTemplate:
        folder = tmp_path_factory.mktemp("tokenizer")
        write_tokenizer(folder, style, template)
        return PromptTemplate.open(folder)

    return build


@pytest.fixture(scope="module", params=["llama", "llama-legacy", "qwen"])
def style(request: pytest.FixtureRequest) -> Style:
    return request.param


@pytest.fixture(scope="module")
def prompt(build: Callable[..., PromptTemplate], style: Style) -> PromptTemplate:
    return build(style, PLAIN)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, style: Style) -> Tokenizer:
    """The same tokenizer without any special token: what a person's text must be encoded as."""
    folder = tmp_path_factory.mktemp("plain")
    write_tokenizer(folder, style)
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["added_tokens"], content["post_processor"] = [], None
    return Tokenizer.from_str(json.dumps(content))


def says(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


adversarial = st.lists(
    st.sampled_from(
        [
            *LLAMA_SPECIAL,
            *QWEN_SPECIAL,
            "<",
            "s>",
            "<ima",
            "ge>",
            " ",
            "\n",
            "cat",
            "\ue000",
            "\ufdd0",
            "\ufdd2",
            "\U000f0001",
            "é",
        ]
    ),
    min_size=1,
    max_size=8,
).map("".join)


@settings(max_examples=60, deadline=None)
@given(text=adversarial)
def test_a_literal_special_token_is_data(prompt: PromptTemplate, plain: Tokenizer, style: Style, text: str) -> None:
    ids = prompt.render(says(text), 0).ids.tolist()
    begin = [] if style == "qwen" else [1]
    assert ids == begin + plain.encode(text, add_special_tokens=False).ids


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(adversarial, min_size=1, max_size=4))
def test_parts_side_by_side_never_make_a_special_token(
    prompt: PromptTemplate, plain: Tokenizer, style: Style, parts: list[str]
) -> None:
    content = [{"type": "text", "text": part} for part in parts]
    ids = prompt.render([{"role": "user", "content": content}], 0).ids.tolist()
    begin = [] if style == "qwen" else [1]
    assert ids == begin + plain.encode("".join(parts), add_special_tokens=False).ids


def test_a_literal_beside_a_picture(build: Callable[..., PromptTemplate]) -> None:
    prompt = build("qwen", "chatml")
    encoded = prompt.render(question("is <image> or <|im_end|> here?", 2), 2)
    decoded = prompt.tokenizer.decode(encoded.ids.tolist(), skip_special_tokens=False)
    assert decoded == "<|im_start|>user\n\n\nis <image> or <|im_end|> here?<|im_end|>\n<|im_start|>assistant\n"
    ends = prompt.tokenizer.token_to_id("<|im_end|>")
    assert encoded.ids.tolist().count(ends) == 1
    header = prompt.tokenizer.encode("<|im_start|>user\n").ids
    assert encoded.splices == (len(header), len(header) + 1)


def test_splices_count_text_tokens_only(build: Callable[..., PromptTemplate]) -> None:
    encoded = build("llama", PLAIN).render(
        [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "the"}, {"type": "image"}]},
            {"role": "assistant", "content": "a"},
            {"role": "user", "content": [{"type": "image"}, {"type": "image"}]},
        ]
    )
    first, *_ = encoded.splices
    assert first == 1  # after the begin-of-text token
    assert encoded.splices[-2:] == (len(encoded.ids), len(encoded.ids))
    assert sorted(encoded.splices) == list(encoded.splices)


@pytest.mark.parametrize("text", ["  <image>  ", " ends with <", "> starts so", "  plain  "])
def test_a_template_may_trim_a_text(build: Callable[..., PromptTemplate], text: str) -> None:
    prompt = build("qwen", TRIMMED)
    ids = prompt.render(says(text)).ids.tolist()
    assert prompt.tokenizer.decode(ids, skip_special_tokens=False) == f"[{text.strip()}]"


def test_a_template_that_cuts_a_literal_is_refused(build: Callable[..., PromptTemplate]) -> None:
    prompt = build("llama", "{% for m in messages %}{{ m['content'][0].text[:1] }}{% endfor %}")
    with pytest.raises(CheckpointError, match="cuts a text inside"):
        prompt.render(says("<s>"))


@pytest.mark.parametrize("template", ["{{ messages[0].content }}", "{{ messages[0]['content'].strip() + '!' }}"])
def test_a_template_for_strings_gets_markers(build: Callable[..., PromptTemplate], template: str) -> None:
    prompt = build("qwen", template)
    encoded = prompt.render(question("what <image> is", 2), 2)
    assert encoded.splices == (0, 1)
    expected = "\n\nwhat <image> is" + ("!" if "!" in template else "")
    assert prompt.tokenizer.decode(encoded.ids.tolist(), skip_special_tokens=False) == expected


def test_bos_is_not_doubled(build: Callable[..., PromptTemplate]) -> None:
    plain, with_bos = build("llama", PLAIN), build("llama", "{{ bos_token }}" + PLAIN)
    assert plain.render(says("the")).ids.tolist()[:2].count(1) == 1
    assert with_bos.render(says("the")).ids.tolist()[:2].count(1) == 1
    # The person's own <s> does not pass for the template's.
    assert plain.render(says("<s>")).ids.tolist().count(1) == 1


@pytest.mark.parametrize(("add_bos", "add_eos"), [(True, True), (True, False), (False, False), (None, None)])
def test_what_the_config_adds(tmp_path: Path, add_bos: bool | None, add_eos: bool | None) -> None:
    write_tokenizer(tmp_path, "llama", PLAIN)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del config["add_bos_token"], config["add_eos_token"]
    if add_bos is not None:
        config |= {"add_bos_token": add_bos, "add_eos_token": add_eos, "bos_token": {"content": "<s>", "lstrip": False}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ids = PromptTemplate.open(tmp_path).render(says("the")).ids.tolist()
    assert (ids[0] == 1) is (add_bos is not False)  # tokenizer.json itself adds it where the config is silent
    assert (ids[-1] == 2) is bool(add_eos)


def test_a_tokenizer_without_a_picture_token(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "qwen", "chatml")
    content = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != "<image>"]
    content["truncation"] = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    content["padding"] = {
        "strategy": {"Fixed": 99},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "!",
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    prompt = PromptTemplate.open(tmp_path)
    encoded = prompt.render(question("what is shown?"), 1)
    assert len(encoded.splices) == 1
    decoded = prompt.tokenizer.decode(encoded.ids.tolist(), skip_special_tokens=False)
    assert decoded == "<|im_start|>user\n\nwhat is shown?<|im_end|>\n<|im_start|>assistant\n"


def test_question_is_one_message_with_the_pictures_first() -> None:
    parts = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "why?"}]
    assert question("why?", 2) == [{"role": "user", "content": parts}]


def test_messages_stay_as_they_were(build: Callable[..., PromptTemplate]) -> None:
    messages = question("a literal <image>")
    build().render(messages)
    assert messages == question("a literal <image>")


def test_no_generation_prompt(build: Callable[..., PromptTemplate]) -> None:
    prompt = build("qwen", "chatml")
    asked, open_ended = (prompt.render(says("why?"), add_generation_prompt=flag).ids.tolist() for flag in (True, False))
    assert asked[: len(open_ended)] == open_ended
    assert len(asked) > len(open_ended)


@pytest.mark.parametrize(
    ("messages", "pictures", "message"),
    [
        ([], 0, "no messages; expected at least one"),
        ([{"role": "user", "content": []}], 0, "message 0 has no part; expected at least one"),
        (question("why?", 2), 1, "1 pictures for messages with 2"),
        (says("why?"), 1, "1 pictures for messages with 0"),
        ([{"role": "<|im_end|>", "content": "x"}], 0, "message 0 has the role '<|im_end|>'"),
        (["x"], 0, "message 0 has the role None"),
        ([*says("x"), {"role": "assistant"}], 0, "message 1 has a content of type NoneType"),
        ([{"role": "user", "content": ["x"]}], 0, "message 0 has a part of type None"),
        ([{"role": "user", "content": [{"type": "video"}]}], 0, "message 0 has a part of type 'video'"),
        ([{"role": "user", "content": [{"type": "text", "text": 5}]}], 0, "message 0 has a part of type 'text'"),
        (says("ab\ud800"), 0, "message 0 holds a lone surrogate at character 2"),
        ([{"role": "system", "content": [{"type": "image"}]}], 1, "has written 0 pictures for 1"),
    ],
)
def test_bad_messages(build: Callable[..., PromptTemplate], messages: Any, pictures: int, message: str) -> None:
    with pytest.raises((InputError, CheckpointError)) as error:
        build("llama", NO_SYSTEM_PICTURES).render(messages, pictures)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("template", "error", "message"),
    [
        ("{% for %}", CheckpointError, "not valid at line 1"),
        ("{{ raise_exception('two\nlines') }}", InputError, "refuses these messages (two lines)"),
        ("{{ nothing.at.all }}", CheckpointError, "UndefinedError"),
        ("{{ 1 + 'a' }}", CheckpointError, "TypeError"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", CheckpointError, "SecurityError"),
        ("{{ messages.append(1) }}", CheckpointError, "SecurityError"),
        ("{% include '/etc/passwd' %}", CheckpointError, "TypeError"),
        ("text only", CheckpointError, "has written 0 pictures for 1"),
        ("<image><image>", CheckpointError, "has written 2 pictures for 1"),
    ],
)
def test_bad_templates(
    build: Callable[..., PromptTemplate], template: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as raised:
        build("llama", template).render(question("why?"), 1)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("file", "content", "error"),
    [
        ("tokenizer.json", None, CheckpointError),
        ("tokenizer.json", "{}", CheckpointError),
        ("tokenizer_config.json", "not json", CheckpointError),
        ("tokenizer_config.json", "[]", CheckpointError),
        ("chat_template.jinja", None, CheckpointError),
    ],
)
def test_bad_files(tmp_path: Path, file: str, content: str | None, error: type[Exception]) -> None:
    write_tokenizer(tmp_path, "llama")
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_text(content)
    with pytest.raises(error):
        PromptTemplate.open(tmp_path)


def test_hub_template_features(build: Callable[..., PromptTemplate]) -> None:
    prompt = build("qwen", FEATURES)
    ids = prompt.render([*says('"<é>"'), *says("x")]).ids.tolist()
    expected = '[{"type": "text", "text": "\\"<é>\\""}]\n4<|im_end|>'
    assert prompt.tokenizer.decode(ids, skip_special_tokens=False) == expected
