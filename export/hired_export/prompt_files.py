"""The files of a checkpoint that turn messages into tokens, copied into a bundle; and facts for its manifest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from jinja2 import TemplateSyntaxError, nodes, pass_context
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from hired_edge.errors import CheckpointError, InputError
from hired_edge.manifest import PromptFiles
from hired_edge.planner.original import is_original
from hired_edge.prompt_rules import FILTERS, MOST_CHARACTERS, check_token_ids, tokenizer_refused
from hired_export.checkpoint import Checkpoint
from hired_export.conversations import Conversation, conversation, template_for
from hired_export.families.registry import FAMILIES
from hired_export.sentencepiece_model import converted, parse

TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
SENTENCEPIECE, ADDED_TOKENS = "tokenizer.model", "added_tokens.json"
CHAT_TEMPLATE, GENERATION_CONFIG = "chat_template.jinja", "generation_config.json"
PREPROCESSOR_CONFIG = "preprocessor_config.json"
SPECIAL_TOKENS = "special_tokens_map.json"
IMAGE_TOKEN = "<image>"
STANDARD_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""Names of tokens that every tokenizer of transformers may have; others are a model's own."""


@dataclass(frozen=True)
class Prompt:
    """What was read: file contents by their name in the bundle, and facts for the manifest."""

    files: dict[str, bytes]
    image_token: str
    stop_token_ids: tuple[int, ...]
    around: tuple[str, str] = ("", "")
    """Before and behind a picture; "" for none."""


def read(checkpoint: Checkpoint, config: Any, chat_template: Path | None = None) -> Prompt:
    """Reads and checks the files; nothing is written.

    Args:
        checkpoint: its folder; a tokenizer.model is converted where there is no tokenizer.json.
        config: as transformers reads it.
        chat_template: a jinja2 file in place of the checkpoint's own.

    Raises:
        CheckpointError: no tokenizer or one that cannot be read, or no chat template.
        InputError: `chat_template` cannot be read.
    """
    original = is_original(checkpoint.config)
    tokenizer = _tokenizer(checkpoint)
    source, template = str(checkpoint.root), None
    if chat_template is not None:
        source, template = str(chat_template), _given_template(chat_template)
    chosen = conversation(checkpoint.config, checkpoint.root, config.text_config.model_type) if original else None
    if template is None:
        template = _chat_template(checkpoint, chosen, tokenizer)
    files = {
        TOKENIZER: tokenizer,
        TOKENIZER_CONFIG: _tokenizer_config(checkpoint),
        CHAT_TEMPLATE: _checked_template(source, template),
    }
    for name in (GENERATION_CONFIG, PREPROCESSOR_CONFIG):
        if (checkpoint.root / name).is_file():
            files[name] = _content(checkpoint, name)
    stops = _stop_tokens(checkpoint, config)
    if chosen is not None:  # the original code stops at this word, whatever generation_config.json says
        stop = Tokenizer.from_str(tokenizer.decode()).token_to_id(chosen.stop)
        stops += (stop,) if stop is not None and stop < config.text_config.vocab_size and stop not in stops else ()
    # An original vocabulary has no token for a picture.
    image = IMAGE_TOKEN if original else _image_token(checkpoint, config)
    return Prompt(files, image, stops, _around(checkpoint, FAMILIES[config.model_type].around))


def write(prompt: Prompt, root: Path) -> PromptFiles:
    for name, content in prompt.files.items():
        (root / name).write_bytes(content)
    generation = GENERATION_CONFIG if GENERATION_CONFIG in prompt.files else None
    return PromptFiles(TOKENIZER, TOKENIZER_CONFIG, CHAT_TEMPLATE, generation, *prompt.around)


def _content(checkpoint: Checkpoint, name: str) -> bytes:
    try:
        return (checkpoint.root / name).read_bytes()
    except OSError as error:
        raise _unreadable(checkpoint.root / name, error.strerror) from None


def _unreadable(path: Path, reason: str | None) -> CheckpointError:
    return CheckpointError(
        f"{path} cannot be read ({reason})",
        expected="a file as the checkpoint's authors saved it",
        fix="download the file again, or check its permissions",
    )


def _tokenizer(checkpoint: Checkpoint) -> bytes:
    if not (checkpoint.root / TOKENIZER).is_file() and (checkpoint.root / SENTENCEPIECE).is_file():
        return _converted(checkpoint)
    checkpoint.json(TOKENIZER)  # it must be there and be JSON
    content = _content(checkpoint, TOKENIZER)
    with tokenizer_refused(f"be read from {checkpoint.root / TOKENIZER}"):
        tokenizer = Tokenizer.from_str(content.decode())
    check_token_ids(tokenizer.get_vocab().values())
    return content


def _converted(checkpoint: Checkpoint) -> bytes:
    name = str(checkpoint.root / SENTENCEPIECE)
    model = parse(_content(checkpoint, SENTENCEPIECE), name)
    added = checkpoint.json(ADDED_TOKENS) if (checkpoint.root / ADDED_TOKENS).is_file() else {}
    return converted(model, checkpoint.json(TOKENIZER_CONFIG), added, name).to_str().encode()


def _tokenizer_config(checkpoint: Checkpoint) -> bytes:
    """tokenizer_config.json, with the special tokens that older checkpoints name in special_tokens_map.json."""
    config = checkpoint.json(TOKENIZER_CONFIG)
    if (checkpoint.root / SPECIAL_TOKENS).is_file():
        config = {**checkpoint.json(SPECIAL_TOKENS), **config}
    text = json.dumps(config, indent=2, ensure_ascii=False)
    return text.encode(errors="backslashreplace")  # half a character (from "\\ud800") has no other form


def _given_template(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise InputError(
            f"--chat-template {str(path)[:200]} cannot be read ({reason})",
            expected="a jinja2 template",
            fix="check the path",
        ) from None


def _chat_template(checkpoint: Checkpoint, chosen: Conversation | None, tokenizer: bytes) -> str:
    """From where transformers puts it, newest first: a file of its own, a JSON file, the tokenizer's config.

    In an original layout the tokenizer's config has at most the text model's own, from before it saw pictures: the
    `chosen` conversation goes before it.
    """
    path = checkpoint.root / CHAT_TEMPLATE
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except OSError as error:
            raise _unreadable(path, error.strerror) from None
        except UnicodeDecodeError as error:
            raise _unreadable(path, f"byte {error.start} is not UTF-8") from None
    for name in ("chat_template.json", "processor_config.json", *(() if chosen else (TOKENIZER_CONFIG,))):
        if (checkpoint.root / name).is_file():
            template = checkpoint.json(name).get("chat_template")
            if isinstance(template, str):
                return template
    if chosen is not None:
        return template_for(chosen, Tokenizer.from_str(tokenizer.decode()))
    raise CheckpointError(
        f"{checkpoint.root} holds no chat template",
        expected="chat_template.jinja, or chat_template in chat_template.json or tokenizer_config.json",
        fix="add the model's chat template as chat_template.jinja, or pass it as --chat-template FILE",
    )


def _checked_template(source: str, template: str) -> bytes:
    """Compiled as a device does. What it says to which messages is its own affair.

    Not by transformers, whose compiler computes constants at once: `'a' * 10**9` takes a gigabyte there.
    """
    environment = ImmutableSandboxedEnvironment(
        extensions=[_Generation, "jinja2.ext.loopcontrols"], optimized=False, finalize=_as_it_is
    )
    for name in FILTERS:
        del environment.filters[name]
    reason = f"has {len(template)} characters, more than {MOST_CHARACTERS}"
    if len(template) <= MOST_CHARACTERS:
        try:
            environment.from_string(template)
            return template.encode()
        except TemplateSyntaxError as error:
            reason = f"is not valid at line {error.lineno} ({error.message})"
        except (RecursionError, SyntaxError, MemoryError):  # jinja2 compiles to Python, which has bounds
            reason = "is nested too deeply"
        except UnicodeEncodeError:  # of a JSON file: "\\ud800"
            reason = "holds half a character"
        except ValueError:
            reason = "has a number of too many digits"
    raise CheckpointError(
        f"the chat template of {source} {reason}",
        expected="a jinja2 template",
        fix="download the checkpoint's chat template again, or mend it",
    )


@pass_context
def _as_it_is(context: Context, value: object) -> object:
    """What needs a context is not computed at once."""
    return value


class _Generation(Extension):
    """`{% generation %}`, which is transformers' own."""

    tags: ClassVar[set[str]] = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def _image_token(checkpoint: Checkpoint, config: Any) -> str:
    """The token that stands for a picture in the chat template, by its id in config.json."""
    added = checkpoint.json(TOKENIZER).get("added_tokens") or []
    by_id = {token.get("id"): token.get("content") for token in added if isinstance(token, dict)}
    return by_id.get(config.image_token_id) or IMAGE_TOKEN


def _around(checkpoint: Checkpoint, keys: tuple[str, str] | None) -> tuple[str, str]:
    """The special tokens before and behind a picture, by the names that tokenizer_config.json has for them."""
    if keys is None:
        return "", ""
    given = _named_tokens(checkpoint.json(TOKENIZER_CONFIG))
    known = {token.get("content") for token in checkpoint.json(TOKENIZER).get("added_tokens") or []}

    def token(key: str) -> str:
        found = given.get(key)
        if not isinstance(found, str) or found not in known:
            raise CheckpointError(
                f"{TOKENIZER_CONFIG} says {key} {json.dumps(found)[:60]}",
                expected=f"a token of {TOKENIZER}",
                fix="download the checkpoint's tokenizer files again",
            )
        return found

    before, behind = keys
    return token(before), token(behind)


def _named_tokens(config: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer's special tokens by their names, from where transformers takes them: what it calls extra goes before
    what stands by itself, and only where there is neither does it look at what it calls the model's own."""
    extra, own = (config.get(key) for key in ("extra_special_tokens", "model_specific_special_tokens"))
    alone = {
        key: config[key] for key in config if key.endswith("_token") and key not in STANDARD_TOKENS and config[key]
    }
    named = {**alone, **(extra if isinstance(extra, dict) else {})} or (own if isinstance(own, dict) else {})
    return {key: token.get("content") if isinstance(token, dict) else token for key, token in named.items()}


def _stop_tokens(checkpoint: Checkpoint, config: Any) -> tuple[int, ...]:
    """End-of-sequence ids, from generation_config.json or else config.json."""
    stop = None
    if (checkpoint.root / GENERATION_CONFIG).is_file():
        stop = checkpoint.json(GENERATION_CONFIG).get("eos_token_id")
    if stop is None:
        stop = getattr(config, "eos_token_id", None)
    if stop is None:
        stop = config.text_config.eos_token_id
    ids = stop if isinstance(stop, list) else [] if stop is None else [stop]
    vocabulary = config.text_config.vocab_size
    if not all(isinstance(i, int) and 0 <= i < vocabulary for i in ids):
        raise CheckpointError(
            f"eos_token_id is {json.dumps(stop)}",
            expected=f"token ids from 0 to {vocabulary - 1}",
            fix="mend generation_config.json",
        )
    return tuple(ids)
