"""A checkpoint's tokenizer, chat template and generation config, as an export reads and a device then uses them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

from hired_export import prompt_files
from hired_export.checkpoint import Checkpoint
from hired_runtime.prompt import PromptTemplate
from tests.fuzz.mutators import json_text, parts, template
from tests.fuzz.surface import Feed, Surface
from tests.fuzz.surfaces import prompt
from tests.fuzz.surfaces.prompt import apart, use

CONFIG = {
    "hub": {"model_type": "llava"},
    "original": {"model_type": "llava", "mm_vision_tower": "x", "_name_or_path": "vicuna"},
}
JSON = (
    *("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"),
    *("chat_template.json", "processor_config.json"),
)
FILES = (*JSON, "chat_template.jinja")


def seeds() -> dict[str, bytes]:
    found = {}
    for name, data in prompt.seeds().items():
        files = parts.split(data)
        more = {"config.json": json.dumps(CONFIG["hub"]).encode(), "generation_config.json": b'{"eos_token_id": 2}'}
        found[name] = parts.joined(files | more)
        text = files.pop("chat_template.jinja").decode()
        given = json.dumps({"chat_template": text}).encode()
        found[f"{name}-json"] = parts.joined(files | more | {"chat_template.json": given})
        tokens = b'{"eos_token": "</s>", "bos_token": {"content": "<s>"}}'
        original = {"config.json": json.dumps(CONFIG["original"]).encode(), "special_tokens_map.json": tokens}
        found[f"{name}-original"] = parts.joined(files | original)
    return found


def opened(folder: Path) -> Feed:
    text = SimpleNamespace(model_type="llama", vocab_size=512, eos_token_id=2)
    config = SimpleNamespace(model_type="llava", text_config=text, image_token_id=5)
    out = folder / "out"
    out.mkdir()

    def feed(data: bytes) -> None:
        parts.written(data, folder, FILES)
        read = prompt_files.read(Checkpoint(folder), config)
        written = prompt_files.write(read, out)
        use(PromptTemplate.open(out, written, image_token=read.image_token))

    return apart(feed)


_json = json_text.of({"chat_template": template.of_text})
SURFACE = Surface(
    "a checkpoint's tokenizer and chat template on a workstation",
    opened,
    seeds,
    parts.of({**dict.fromkeys(JSON, _json), "chat_template.jinja": template.mutated}),
)
