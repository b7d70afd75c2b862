"""Chat templates for checkpoints in an original layout, which have none: their code chooses by the model's name.

So does this: by the text model and by what config.json or the folder is called; no match is an error, not a guess. The
words are those of `conv_templates` in llava/conversation.py (haotian-liu/LLaVA; LLaVA-VL/LLaVA-NeXT for the last two),
which evaluations name as `--conv-mode`. A system message takes the place of the conversation's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from hired_edge.prompt_rules import tokenizer_refused

IMAGE = "<image>"


@dataclass(frozen=True)
class Conversation:
    """One prompt format.

    Args:
        mode: its name in `conv_templates`.
        text_model: whose it is.
        named: what the names must contain; any name will do if empty.
        template: jinja2; `PICTURE` stands for a picture and its line break.
        stop: the word that ends an answer.
    """

    mode: str
    text_model: str
    named: str
    template: str
    stop: str


_PICTURES = (
    "{% for part in message['content'] if part['type'] == 'image' %}{{ 'PICTURE' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
)
_TEXTS = "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"


def _headed(default: str, turns: Mapping[str, tuple[str, str]], answer: str) -> str:
    """A template of turns that each have a beginning and an end.

    Args:
        default: the system message where none is given.
        turns: role -> what comes before and after its words, as jinja2 expressions.
        answer: what makes the model answer.
    """
    before, after = turns["system"]
    system = f"{{% if messages[0]['role'] != 'system' %}}{{{{ {before} + {default!r} + {after} }}}}{{% endif %}}"
    parts = [
        f"{{% {'elif' if i else 'if'} message['role'] == '{role}' %}}"
        f"{{{{ {begin} }}}}{_PICTURES if role == 'user' else _TEXTS}{{{{ {end} }}}}"
        for i, (role, (begin, end)) in enumerate(turns.items())
    ]
    body = "{% for message in messages %}" + "".join(parts) + "{% endif %}{% endfor %}"
    return system + body + f"{{% if add_generation_prompt %}}{{{{ {answer} }}}}{{% endif %}}"


_VICUNA = _headed(
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    {"system": ("''", "' '"), "user": ("'USER: '", "' '"), "assistant": ("'ASSISTANT: '", "eos_token")},
    "'ASSISTANT:'",
)
_MISTRAL = (  # a system message stands inside the first question
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ '[INST] <<SYS>>\\n' }}"
    + _TEXTS
    + "{{ '\\n<</SYS>>\\n\\n' }}{% elif message['role'] == 'user' %}"
    + "{% if loop.index0 != 1 or messages[0]['role'] != 'system' %}{{ '[INST] ' }}{% endif %}"
    + _PICTURES
    + "{{ ' [/INST]' }}{% else %}{{ ' ' }}"
    + _TEXTS
    + "{{ ' ' + eos_token }}{% endif %}{% endfor %}"
)


def _marked(default: str, gap: str) -> str:
    """ChatML, with `gap` (jinja2 text) between the turns."""
    turns = {role: (f"'<|im_start|>{role}\\n'", f"'<|im_end|>{gap}'") for role in ("system", "user", "assistant")}
    return _headed(default, turns, "'<|im_start|>assistant\\n'")


_LLAMA_3 = _headed(
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language.",
    {
        role: (f"'<|start_header_id|>{role}<|end_header_id|>\\n\\n'", "'<|eot_id|>'")
        for role in ("system", "user", "assistant")
    },
    "'<|start_header_id|>assistant<|end_header_id|>\\n\\n'",
)

CONVERSATIONS = (
    Conversation("mistral_instruct", "mistral", "", _MISTRAL, "</s>"),
    Conversation("mistral_instruct", "llama", "mistral", _MISTRAL, "</s>"),
    Conversation("chatml_direct", "llama", "34b", _marked("Answer the questions.", ""), "<|im_end|>"),
    Conversation("llava_llama_3", "llama", r"llama-?3", _LLAMA_3, "<|eot_id|>"),
    Conversation("vicuna_v1", "llama", r"vicuna|llava-v1\.5|share(gpt)?4v", _VICUNA, "</s>"),
    Conversation("qwen_1_5", "qwen2", "", _marked("You are a helpful assistant.", "\\n"), "<|im_end|>"),
)
"""In the order in which they are tried."""


def conversation(config: Mapping[str, Any], root: Path, text_model: str) -> Conversation | None:
    """The format of an original checkpoint; None where nothing tells it."""
    folder = root.resolve()
    # The Hub's cache: models--liuhaotian--llava-v1.5-7b/snapshots/4481d270cc22fd...
    cached = folder.parents[1].name if folder.parent.name == "snapshots" else ""
    names = " ".join(str(name) for name in (config.get("model_type"), config.get("_name_or_path"), folder.name, cached))
    for each in CONVERSATIONS:
        if each.text_model == text_model and re.search(each.named, names.lower()):
            return each
    return None


def template_for(chosen: Conversation, tokenizer: Tokenizer) -> str:
    """The conversation's template; what follows a picture is encoded as a text of its own.

    The original code encodes the text before and after a picture apart, so SentencePiece's first space comes again.
    Where the tokenizer only adds it at the beginning of the whole, a space is written after the picture.
    """
    space = "" if _alike(tokenizer, "\nA") else " "
    return chosen.template.replace("PICTURE", f"{IMAGE}{space}\\n")


def _alike(tokenizer: Tokenizer, text: str) -> bool:
    """Whether a text after a picture has the ids of the text alone."""
    with tokenizer_refused("take a token for pictures"):
        trial = Tokenizer.from_str(tokenizer.to_str())
        trial.add_special_tokens([AddedToken(IMAGE, normalized=False, special=True)])
        after = trial.encode(f"A{IMAGE}{text}", add_special_tokens=False).ids
        alone = trial.encode(text, add_special_tokens=False).ids
    image = trial.token_to_id(IMAGE)
    return image in after and after[after.index(image) + 1 :] == alone
