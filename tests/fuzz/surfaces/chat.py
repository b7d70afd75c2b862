"""The body of /v1/chat/completions: parsed, read, and its messages rendered and encoded."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from hired_edge.bundle import Bundle
from hired_runtime.prompt import PromptTemplate
from hired_runtime.serving.api_errors import ApiError, api_error
from hired_runtime.serving.chat_request import ChatRequests
from hired_runtime.serving.json_body import read_json
from hired_runtime.serving.media import MediaLimits
from hired_runtime.serving.settings import ServerSettings
from tests.fuzz.mutators import json_text
from tests.fuzz.surface import ROOT, Feed, Surface
from tests.fuzz.surfaces.pictures import MOST_PIXELS
from tests.fuzz.surfaces.pictures import seeds as drawn

BUNDLE = ROOT / "demo/bundle"


def bodies() -> dict[str, dict[str, Any]]:
    url = "data:image/png;base64," + base64.b64encode(drawn()["png"]).decode()
    picture = {"type": "image_url", "image_url": {"url": url, "detail": "auto"}}
    asked = [{"role": "user", "content": [picture, {"type": "text", "text": "How many cards are there?"}]}]
    history = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello <image> </s>"},
        {"role": "assistant", "content": "Yes.", "refusal": None, "annotations": [], "tool_calls": None},
        *asked,
    ]
    more = {"max_completion_tokens": 4, "temperature": 0.7, "top_p": 0.9, "seed": 3, "stop": ["\n", "END"], "user": "x"}
    own = {
        "visual_tokens": "20%",
        "policy": "hired",
        "alpha": 0.5,
        "newlines": "none",
        "top_k": 4,
        "partitions": "base",
    }
    stream = {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 4, "positions": "original"}
    neutral = {"n": 1, "logprobs": False, "tools": [], "response_format": {"type": "text"}, "store": True}
    return {
        "asked": {"model": "cards", "messages": asked, **more},
        "history": {"model": "cards", "messages": history, **own},
        "stream": {"model": "cards", "messages": [{"role": "developer", "content": "x"}, *asked], **stream, **neutral},
    }


def seeds() -> dict[str, bytes]:
    return {name: json.dumps(body).encode() for name, body in bodies().items()}


def opened(folder: Path) -> Feed:
    manifest = Bundle.open(BUNDLE, verify=False).manifest
    prompt = PromptTemplate.open(BUNDLE, manifest.prompt, image_token=manifest.image_token)
    media = MediaLimits(max_pixels=MOST_PIXELS, allowed_media_path=folder)
    longest = max(map(len, prompt.tokenizer.get_vocab()))
    requests = ChatRequests(ServerSettings("cards", media=media), manifest.limits, longest)

    def feed(data: bytes) -> None:
        chat = requests.read(read_json(data))
        try:
            prompt.render(chat.request.messages, len(chat.request.images))
        except Exception as error:
            told = api_error(error)
            if told.status >= 500:  # no client's fault
                raise
            raise told from None

    return feed


SURFACE = Surface(
    "chat requests, up to the prompt's tokens", opened, seeds, json_text.of(), errors=lambda: (ApiError,), spend_mib=96
)
