"""tokenizer.json, its config and a chat template, as a device reads and uses them: rendered, encoded and decoded."""

from __future__ import annotations

import threading
from pathlib import Path

from hired_runtime.prompt import FILES, PromptTemplate
from hired_runtime.text import TextStream
from tests.fuzz.mutators import json_text, parts, template
from tests.fuzz.surface import ROOT, Feed, Surface

NAMES = (FILES.tokenizer, FILES.tokenizer_config, FILES.chat_template)
PICTURE = {"type": "image"}
CONVERSATIONS = (
    [{"role": "user", "content": [PICTURE, {"type": "text", "text": "What is on the table?"}]}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": " Two: <image>\n"}, PICTURE, PICTURE]},
        {"role": "assistant", "content": "A cup. </s>"},
        {"role": "user", "content": "\u00e9\U0001f600 \ue000 <|im_end|> ?"},
    ],
)
BUNDLES = ("demo/bundle", "tests/golden/bundle", "tests/golden/bundle-int4")


def seeds() -> dict[str, bytes]:
    from tests.tiny.tokenizers import write_tokenizer

    found = {}
    for bundle in BUNDLES:
        found[bundle.replace("/", "-")] = {name: (ROOT / bundle / name).read_bytes() for name in NAMES}
    import tempfile

    for style in ("llama", "llama-legacy", "qwen"):
        with tempfile.TemporaryDirectory() as folder:
            write_tokenizer(Path(folder), style)
            found[style] = {name: (Path(folder) / name).read_bytes() for name in NAMES}
    return {name: parts.joined(files) for name, files in found.items()}


def opened(folder: Path) -> Feed:
    def feed(data: bytes) -> None:
        parts.written(data, folder, NAMES)
        use(PromptTemplate.open(folder))

    return apart(feed)


def apart(feed: Feed) -> Feed:
    """Each input in a thread of its own: tokenizers keeps what it remembers of a tokenizer until the thread ends."""

    def fed(data: bytes) -> None:
        raised = list[BaseException]()

        def run() -> None:
            try:
                feed(data)
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if raised:
            raise raised.pop()

    return fed


def use(prompt: PromptTemplate) -> None:
    """What a device does with it."""
    for messages in CONVERSATIONS:
        encoded = prompt.render(messages)
        stream = TextStream(prompt.tokenizer, ["END"])
        for token in (*encoded.ids[:64].tolist(), 0, 1, 10**6):
            stream.push(token)
        stream.flush()


SURFACE = Surface(
    "tokenizer.json, tokenizer_config.json and a chat template on a device",
    opened,
    seeds,
    parts.of(dict(zip(NAMES, (json_text.of(), json_text.of(), template.mutated), strict=True))),
)
