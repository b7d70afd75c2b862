"""A chat template alone: compiled, and rendered for conversations with pictures."""

from __future__ import annotations

from pathlib import Path

from hired_edge.errors import CheckpointError
from hired_export.conversations import CONVERSATIONS as ORIGINAL
from hired_runtime.chat_template import ChatTemplate
from tests.fuzz.mutators import template
from tests.fuzz.surface import ROOT, Feed, Surface
from tests.fuzz.surfaces.prompt import BUNDLES, CONVERSATIONS
from tests.tiny.tokenizers import TEMPLATES

VARIABLES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def seeds() -> dict[str, bytes]:
    found = {name: text.encode() for name, text in TEMPLATES.items()}
    found |= {each.mode: each.template.replace("PICTURE", "<image>\\n").encode() for each in ORIGINAL}
    return found | {each.replace("/", "-"): (ROOT / each / "chat_template.jinja").read_bytes() for each in BUNDLES}


def opened(folder: Path) -> Feed:
    chats = [[{**message, "content": _parts(message["content"])} for message in chat] for chat in CONVERSATIONS]

    def feed(data: bytes) -> None:
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:  # as `PromptTemplate.open` says it
            raise CheckpointError(str(error), expected="UTF-8", fix="mend it") from None
        compiled = ChatTemplate(text, VARIABLES, "<image>")
        for chat in chats:
            compiled.render(chat, add_generation_prompt=True)

    return feed


def _parts(content: object) -> object:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


SURFACE = Surface("a chat template", opened, seeds, template.mutated)
